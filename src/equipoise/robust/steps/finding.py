"""The best step: of all takes and swaps, the one with the largest gain for its cost."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import inlined, internal
from equipoise.robust.steps.layer import PROMISE, WORTH
from equipoise.robust.steps.making import is_new
from equipoise.robust.steps.rules import EMPTY, HALF, NOBODY, SLACK

__all__ = ["best_step", "note_both", "note_ease"]

ALONG, OWN, COST = 0, 1, 2  # of ``side``
HERE, THERE = np.int64(0), np.int64(1)  # the sides of a swap


@internal
def best_step(layer):
    """Return the gain for its cost of the best step, and a, g, i, h, j; h is -1 where a takes slot i of g."""
    best, a, g, i = _best_take(layer)
    ranks, h, j = len(layer.held), NOBODY, NOBODY
    for r in range(ranks):
        for q in range(r + 1, ranks):
            if layer.node[r] != layer.node[q]:
                continue
            if layer.pair[r, q, WORTH] < 0.0 and layer.pair[r, q, PROMISE] > best:
                layer.pair[r, q, PROMISE] = _promise(layer, r, q)
                if layer.pair[r, q, PROMISE] > best:
                    layer.pair[r, q, WORTH], layer.pair[r, q, 1], layer.pair[r, q, 2] = _best_swap(layer, r, q)
            if layer.pair[r, q, WORTH] > best:
                best, g, h = layer.pair[r, q, WORTH], r, q
    if h >= 0:
        i, j = int(layer.pair[g, h, 1]), int(layer.pair[g, h, 2])
        a = np.int64(layer.held[g, i])
    return best, a, g, i, h, j


@inlined
def _promise(layer, g, h):
    """Note what the replicas of two ranks take along to the other one; return what no swap of them exceeds.

    What two replicas have in common makes up for no more than their own squares.
    """
    most, least, leaves, comes = -np.inf, np.inf, 2.0, 2.0
    for s in range(layer.held.shape[1]):
        _note_side(layer, HERE, g, h, s)
        most, leaves = max(most, layer.side[0, s, ALONG]), min(leaves, layer.side[0, s, COST])
        _note_side(layer, THERE, h, g, s)
        least, comes = min(least, layer.side[1, s, ALONG]), min(comes, layer.side[1, s, COST])
    return 2.0 * SLACK * (most - least) / max(leaves + comes, HALF)


@inlined
def _note_side(layer, side, r, q, s):
    """Note of slot s of rank r what its replica takes along to q, its own square, and the transfers that this costs.

    What cannot go takes along infinitely little from the first side, or much from the second.
    """
    e = np.int64(layer.held[r, s])
    layer.side[side, s] = 0.0
    if e < EMPTY or (e >= 0 and layer.times[q, e] > 0):
        layer.side[side, s, ALONG] = np.inf if side else -np.inf
    elif e >= 0:
        apart = layer.along[q, e] - layer.along[r, e] if side else layer.along[r, e] - layer.along[q, e]
        layer.side[side, s, ALONG] = apart * layer.each[e]
        layer.side[side, s, OWN] = layer.product[e, e] * layer.each[e] * layer.each[e]
        layer.side[side, s, COST] = is_new(layer, q, e) - is_new(layer, r, e)


@inlined
def _best_swap(layer, g, h):
    """Return the gain for its cost of the best swap of two ranks, as noted of them, and the slots of each."""
    best, best_i, best_j = 0.0, 0, 0
    for i in range(layer.held.shape[1]):
        a = layer.held[g, i]
        for j in range(layer.held.shape[1]):
            cost = max(layer.side[0, i, COST] + layer.side[1, j, COST], HALF)
            if 2.0 * SLACK * (layer.side[0, i, ALONG] - layer.side[1, j, ALONG]) <= best * cost:
                continue
            b = layer.held[h, j]
            half = layer.side[0, i, ALONG] - layer.side[0, i, OWN] - layer.side[1, j, ALONG] - layer.side[1, j, OWN]
            if a >= 0 and b >= 0:
                half += 2.0 * layer.product[a, b] * layer.each[a] * layer.each[b]
            worth = 2.0 * half / cost
            if worth > best:
                best, best_i, best_j = worth, i, j
    return best, np.float64(best_i), np.float64(best_j)


@inlined
def _best_take(layer):
    """Return the gain for its cost of the best take, and the expert, rank and slot."""
    best, best_a, best_g, best_i = 0.0, np.int64(-1), -1, -1
    note_ease(layer)
    for g in range(len(layer.held)):
        for i in range(layer.held.shape[1]):
            b = np.int64(layer.held[g, i])
            if b < EMPTY or (b >= 0 and (layer.replicas[b] < 2 or b == layer.split[0])):
                continue
            freed = note_both(layer, g, b, 1.0)
            other, each = max(b, 0), layer.each[b] if b >= 0 else 0.0
            for a in range(len(layer.ease)):
                shared = each * layer.product[other, a] - layer.along[g, a]
                layer.gain[a] = layer.ease[a] + freed + 2.0 * layer.more[a] * shared + layer.both[a]
            for a in range(len(layer.ease)):
                gain = layer.gain[a]
                if 2.0 * gain <= best or layer.times[g, a] > 0 or layer.home[a] != layer.node[g]:
                    continue
                cost = is_new(layer, g, a) - is_new(layer, g, b)
                worth = gain / max(np.float64(cost), HALF)
                if worth > best:
                    best, best_a, best_g, best_i = worth, np.int64(a), g, i
            note_both(layer, g, b, 0.0)
    return best, best_a, best_g, best_i


@inlined
def note_ease(layer):
    """Note what one replica more of each expert gains on the ranks that hold it, less its own square."""
    layer.ease[:] = 0.0
    for g in range(len(layer.held)):
        for s in range(layer.held.shape[1]):
            e = layer.held[g, s]
            if e >= 0:
                less = layer.each[e] - layer.more[e]
                layer.ease[e] += 2.0 * layer.along[g, e] * less - layer.product[e, e] * less * less
    for e in range(len(layer.ease)):
        layer.ease[e] -= layer.square_of[e] * layer.more[e] * layer.more[e]


@inlined
def note_both(layer, g, b, there):
    """Return what b gains by giving up a slot of rank g; note where it is with others, one falling as b rises.

    ``there`` is 1, or 0 to forget what was noted.
    """
    if b < 0:
        return 0.0
    each = layer.each[b]
    rise = 1.0 / (layer.replicas[b] - 1) - each
    freed = 2.0 * layer.along[g, b] * each - layer.product[b, b] * each * each
    for r in range(len(layer.held)):
        if r != g and layer.times[r, b] > 0:
            freed -= 2.0 * layer.along[r, b] * rise + layer.product[b, b] * rise * rise
            for s in range(layer.held.shape[1]):
                a = layer.held[r, s]
                if a >= 0:
                    more = 2.0 * (layer.each[a] - layer.more[a]) * rise * layer.product[a, b]
                    layer.both[a] = (layer.both[a] + more) * there
    return freed
