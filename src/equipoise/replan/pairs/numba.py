"""Levelling rank by rank, native: see the folder's contract."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import allocating, inlined, internal, native
from equipoise.replan.pairs import MAX
from equipoise.threads import blocks, for_each

__all__ = ["exchange"]


def exchange(
    held: NDArray[np.int32],
    weight: NDArray[np.int64],
    node: NDArray[np.int32],
    target: NDArray[np.int64],
    threads: int | None = None,
) -> NDArray[np.int64]:
    """Level the ranks of each layer; see the folder's contract."""
    busiest = np.empty(len(held), dtype=np.int64)

    def work(rows: slice) -> None:
        """Exchange in some layers."""
        _exchange_layers(held[rows], weight[rows], node, target[rows], busiest[rows])

    for_each(work, blocks(len(held), threads), threads)
    return busiest


class Layer(NamedTuple):
    """One layer: held int32 [ranks, slots], weight int64 [experts] and node int32 [ranks] as in the contract.

    replicas int64 [experts]; on bool [ranks, experts], who is where; each int64 [ranks, slots], what each slot carries,
    and load int64 [ranks], each rank.
    """

    held: Any
    weight: Any
    node: Any
    replicas: Any
    on: Any
    each: Any
    load: Any


@native
def _exchange_layers(held, weight, node, target, busiest):
    layers, ranks, slots = held.shape
    replicas, on = np.empty(weight.shape[1], dtype=np.int64), np.empty((ranks, weight.shape[1]), dtype=np.bool_)
    each, load = np.empty((ranks, slots), dtype=np.int64), np.empty(ranks, dtype=np.int64)
    for row in range(layers):
        busiest[row] = MAX
        if _count(held[row], replicas, on):
            _level(Layer(held[row], weight[row], node, replicas, on, each, load), target[row])
            busiest[row] = load.max()


@internal
def _count(held, replicas, on):
    """Count replicas and note who is where; return whether no rank holds an expert twice."""
    replicas[:], on[:] = 0, False
    for g in range(held.shape[0]):
        for s in range(held.shape[1]):
            e = held[g, s]
            if e >= 0:
                if on[g, e]:
                    return False
                replicas[e] += 1
                on[g, e] = True
    return True


@inlined
def _weigh(g, layer):
    """Work out what each slot of a rank carries, and the rank."""
    layer.load[g] = 0
    for s in range(layer.held.shape[1]):
        e = layer.held[g, s]
        layer.each[g, s] = 0
        if e >= 0:  # most have one replica
            layer.each[g, s] = layer.weight[e] if layer.replicas[e] == 1 else layer.weight[e] // layer.replicas[e]
        layer.load[g] += layer.each[g, s]


@allocating
def _level(layer, target):
    held, on, each, load = layer.held, layer.on, layer.each, layer.load
    ranks, slots = held.shape
    for g in range(ranks):
        _weigh(g, layer)
    for _ in range(ranks * slots):
        h = int(np.argmax(load))
        top = load[h]
        if top <= target:
            break
        peak, g, j, i = _best_exchange(h, target, layer)
        if peak - target > (top - target) >> 1:
            _, to, at, own = _best_lend(h, peak, layer)
            if to >= 0:
                _lend(held[h, own], to, at, layer)
                continue
        if g < 0:
            break
        u, v, less = held[h, i], held[g, j], each[h, i] - each[g, j]
        held[h, i], held[g, j] = v, u
        each[h, i], each[g, j] = each[g, j], each[h, i]
        load[h] -= less
        load[g] += less
        on[h, u], on[g, v], on[h, v], on[g, u] = False, False, True, True


@inlined
def _best_exchange(h, target, layer):
    """Return what the best exchange leaves to the busier of both, and its rank, slot there and slot of h; or -1."""
    held, node, on, each, load = layer.held, layer.node, layer.on, layer.each, layer.load
    ranks, slots = held.shape
    top, lightest = load[h], h
    for g in range(ranks):
        if load[g] < load[lightest] and node[g] == node[h]:
            lightest = g
    best, best_g, best_j, best_i = top, -1, -1, -1
    for k in range(-1, ranks):
        g = lightest if k < 0 else k
        apart = top - load[g]
        # Nothing between the two does better than levelling them.
        if k == lightest or node[g] != node[h] or load[g] >= target or top - (apart >> 1) >= best:
            continue
        for j in range(slots):
            for i in range(slots):
                less = each[h, i] - each[g, j]
                after = top - min(less, apart - less)
                if after < best:
                    u, v = held[h, i], held[g, j]
                    if u >= 0 and v >= 0 and not on[g, u] and not on[h, v]:
                        best, best_g, best_j, best_i = after, g, j, i
        if best <= target:
            break
    return best, best_g, best_j, best_i


@inlined
def _best_lend(h, best, layer):
    """Return the same of the best lend that leaves less than ``best``."""
    held, weight, replicas, on = layer.held, layer.weight, layer.replicas, layer.on
    each, load = layer.each, layer.load
    ranks, slots = held.shape
    best_g, best_j, best_i = -1, -1, -1
    for g in range(ranks):
        if g == h or layer.node[g] != layer.node[h]:
            continue
        for j in range(slots):
            b = held[g, j]
            if b < 0 or replicas[b] < 2 or on[h, b]:
                continue
            others = np.int64(-1)  # what the busiest other that holds b would carry, once that is asked
            for i in range(slots):
                a = held[h, i]
                if a < 0 or on[g, a]:
                    continue
                more = weight[a] // (replicas[a] + 1)
                after = max(load[h] - each[h, i] + more, load[g] - each[g, j] + more)
                if after >= best:
                    continue
                if others < 0:
                    others = _others_after(b, g, layer)
                if max(after, others) < best:
                    best, best_g, best_j, best_i = max(after, others), g, j, i
    return best, best_g, best_j, best_i


@inlined
def _others_after(b, g, layer):
    """Return what the busiest rank but ``g`` that holds ``b`` carries when b has one replica less."""
    weight, replicas = layer.weight[b], layer.replicas[b]
    rise, most = weight // (replicas - 1) - weight // replicas, np.int64(0)
    for r in range(len(layer.load)):
        if r != g and layer.on[r, b]:
            most = max(most, layer.load[r] + rise)
    return most


@inlined
def _lend(a, g, j, layer):
    """Give slot ``j`` of rank ``g`` to expert ``a``."""
    on, replicas, b = layer.on, layer.replicas, layer.held[g, j]
    layer.held[g, j] = a
    on[g, a], on[g, b] = True, False
    replicas[a] += 1
    replicas[b] -= 1
    for r in range(len(layer.load)):
        if on[r, a] or on[r, b] or r == g:
            _weigh(r, layer)
