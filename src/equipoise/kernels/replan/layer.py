"""One layer while it is re-planned: its slots, and what follows from them, kept up to date slot by slot.

Arrays are named in full where they are read, ``layer.load[g]``: a local name would be counted as one more reference to
the array, atomically and at every call. All functions are inlined for the same reason.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import inlined
from equipoise.kernels.replan import EMPTY

__all__ = [
    "BURDEN",
    "EACH",
    "EASE",
    "FEWER",
    "MORE",
    "SECOND",
    "TALLEST",
    "TALLEST_RANK",
    "Layer",
    "change_replicas",
    "new_layer",
    "note_changed",
    "over",
    "put",
]

EACH, MORE, FEWER = 0, 1, 2  # load of one replica: now, with one replica more, with one less
EASE, BURDEN, TALLEST, TALLEST_RANK, SECOND = 0, 1, 2, 3, 4


class Layer(NamedTuple):
    """``held``, ``was``, ``weight``, ``node``, ``home`` and ``level`` as in the contract, and what is derived.

    on int16 [ranks, experts], replicas of each expert on each rank; where int32 [experts, ranks], the ranks that hold
    it, in no order, num_where of them; replicas int64 [experts]; unit int64 [3, experts]; load int64 [ranks]; touched
    bool [ranks], whether a rank may hold something else than it did, or has an empty slot; noted int64
    [5, experts], see ``_note``; changed bool [ranks], whose load is no longer the one noted; shift as in the contract;
    cap, the busiest rank at the start.
    """

    held: Any
    was: Any
    weight: Any
    node: Any
    home: Any
    level: Any
    on: Any
    where: Any
    num_where: Any
    replicas: Any
    unit: Any
    load: Any
    touched: Any
    noted: Any
    changed: Any
    shift: Any
    cap: Any


@inlined
def new_layer(held, was, weight, node, home, level):  # type: ignore[no-untyped-def]
    """Return the layer, all noted, and the transfers that its slots take."""
    ranks, slots = held.shape
    experts = len(weight)
    on = np.zeros((ranks, experts), dtype=np.int16)
    where, num_where = np.empty((experts, ranks), dtype=np.int32), np.zeros(experts, dtype=np.int64)
    replicas, unit = np.zeros(experts, dtype=np.int64), np.empty((3, experts), dtype=np.int64)
    load, touched = np.zeros(ranks, dtype=np.int64), np.zeros(ranks, dtype=np.bool_)
    spent = 0
    for g in range(ranks):
        missing = 0
        for e in range(experts):
            missing += was[g, e]
        for s in range(slots):
            e = held[g, s]
            if e < 0:
                touched[g] |= e == EMPTY
                continue
            replicas[e] += 1
            on[g, e] += 1
            if on[g, e] == 1:
                where[e, num_where[e]] = g
                num_where[e] += 1
                missing -= was[g, e]
            if not was[g, e]:
                spent += 1
                touched[g] = True
        touched[g] |= missing > 0
    for e in range(experts):
        _weigh(e, weight[e], replicas[e], unit)
        for k in range(num_where[e]):
            load[where[e, k]] += on[where[e, k], e] * unit[EACH, e]
    cap = load.max()
    layer = Layer(
        held, was, weight, node, home, level, on, where, num_where, replicas, unit, load, touched,
        np.empty((5, experts), dtype=np.int64), np.zeros(ranks, dtype=np.bool_), _shift(max(cap - level, 0), ranks), cap
    )  # fmt: skip
    for e in range(experts):
        _note(layer, e)
    return layer, spent


@inlined
def _shift(most, ranks):  # type: ignore[no-untyped-def]
    """Return how many bits to drop so that squares of up to ``most``, one for each rank, add up to less than 2**60."""
    shift = 0
    while (most >> shift) > 0 and (most >> shift) >= np.int64(np.sqrt(2.0**60 / ranks)):
        shift += 1
    return shift


@inlined
def _weigh(e, weight, replicas, unit):  # type: ignore[no-untyped-def]
    if replicas == 1:  # most are, and a division costs as much as all the rest
        unit[EACH, e], unit[MORE, e], unit[FEWER, e] = weight, weight >> 1, weight
        return
    unit[EACH, e] = weight // max(replicas, 1)
    unit[MORE, e] = weight // (replicas + 1)
    unit[FEWER, e] = weight // max(replicas - 1, 1)


@inlined
def over(load, level, shift):  # type: ignore[no-untyped-def]
    """Return the square of what lies above the level."""
    above = max(load - level, 0) >> shift
    return above * above


@inlined
def _note(layer, e):  # type: ignore[no-untyped-def]
    """Note what one replica more of ``e`` would ease, what one less would burden, and who would then stand highest.

    A rank that would exceed ``cap`` counts as ``cap``, so that sums keep their bound; such steps are refused anyway.
    """
    level, shift = layer.level, layer.shift
    ease, fall = np.int64(0), layer.unit[EACH, e] - layer.unit[MORE, e]
    for k in range(layer.num_where[e]):
        r = layer.where[e, k]
        if layer.load[r] > level:
            ease += over(layer.load[r], level, shift) - over(layer.load[r] - layer.on[r, e] * fall, level, shift)
    layer.noted[EASE, e] = ease
    burden, rise = np.int64(0), layer.unit[FEWER, e] - layer.unit[EACH, e]
    first, second, rank = np.int64(0), np.int64(0), -1
    for k in range(layer.num_where[e] if layer.replicas[e] > 1 else 0):
        r = layer.where[e, k]
        after = layer.load[r] + layer.on[r, e] * rise
        burden += over(min(after, layer.cap), level, shift) - over(layer.load[r], level, shift)
        if after > first:
            first, second, rank = after, first, r
        elif after > second:
            second = after
    layer.noted[BURDEN, e] = burden
    layer.noted[TALLEST, e], layer.noted[TALLEST_RANK, e], layer.noted[SECOND, e] = first, rank, second


@inlined
def note_changed(layer):  # type: ignore[no-untyped-def]
    """Note the experts of all ranks that have changed; those of several are noted as often."""
    for r in range(len(layer.changed)):
        if layer.changed[r]:
            layer.changed[r] = False
            for s in range(layer.held.shape[1]):
                e = layer.held[r, s]
                if e >= 0:
                    _note(layer, e)


@inlined
def change_replicas(layer, e, by):  # type: ignore[no-untyped-def]
    """Let ``e`` have ``by`` replicas more: they weigh something else wherever they are."""
    before = layer.unit[EACH, e]
    layer.replicas[e] += by
    _weigh(e, layer.weight[e], layer.replicas[e], layer.unit)
    for k in range(layer.num_where[e]):
        r = layer.where[e, k]
        layer.load[r] += layer.on[r, e] * (layer.unit[EACH, e] - before)
        layer.changed[r] = True


@inlined
def put(layer, g, j, e):  # type: ignore[no-untyped-def]
    """Put expert ``e``, or nobody, into a slot, whoever is there; return the transfers that this adds."""
    spent = 0
    old = layer.held[g, j]
    if old >= 0:
        spent -= not layer.was[g, old]
        layer.load[g] -= layer.unit[EACH, old]
        layer.on[g, old] -= 1
        if layer.on[g, old] == 0:
            k = 0
            while layer.where[old, k] != g:
                k += 1
            layer.num_where[old] -= 1
            layer.where[old, k] = layer.where[old, layer.num_where[old]]
    layer.touched[g] = layer.changed[g] = True
    layer.held[g, j] = e if e >= 0 else EMPTY
    if e >= 0:
        spent += not layer.was[g, e]
        layer.load[g] += layer.unit[EACH, e]
        layer.on[g, e] += 1
        if layer.on[g, e] == 1:
            layer.where[e, layer.num_where[e]] = g
            layer.num_where[e] += 1
    return spent
