"""One layer while it is re-planned: its slots, and what follows from them, kept up to date slot by slot.

Arrays are named in full where they are read, ``layer.load[g]``: a local name would be counted as one more reference to
the array, atomically and at every call. All functions are inlined for the same reason.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import allocating, inlined
from equipoise.replan.levelling import EMPTY

__all__ = ["EACH", "FEWER", "MORE", "Layer", "change_replicas", "new_layer", "note_changed", "over", "put"]

EACH, MORE, FEWER = 0, 1, 2  # load of one replica: now, with one replica more, with one less


class Layer(NamedTuple):
    """``held``, ``was``, ``weight``, ``node``, ``home`` and ``level`` as in the contract, and what is derived.

    on int16 [ranks, experts], replicas of each expert on each rank; where uint32 [experts, most], the ranks that hold
    it, in no order, num_where of them; replicas int64 [experts]; many uint32 [experts], those with several, in no
    order, num_many of them; unit int64 [3, experts]; load int64 [ranks]. Of each rank, int64: vacant, its empty slots;
    fresh, its slots whose expert it did not hold; missing, the experts that it held and holds no more.

    Noted of each expert, see ``_note``: ease int64 [experts]; burden and tallest int64 [experts, most], in the order
    of ``where``, for experts with several replicas. changed bool [ranks], whose load is no longer the one noted. shift
    as in the contract; cap, the busiest rank at the start.
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
    many: Any
    num_many: Any
    unit: Any
    load: Any
    vacant: Any
    fresh: Any
    missing: Any
    ease: Any
    burden: Any
    tallest: Any
    changed: Any
    shift: Any
    cap: Any


@allocating
def new_layer(held, was, weight, node, home, level, limit):
    """Return the layer, all noted, with room for the ranks that hold an expert after up to ``limit`` transfers."""
    ranks, slots = held.shape
    experts = len(weight)
    on = np.zeros((ranks, experts), dtype=np.int16)
    num_where = np.zeros(experts, dtype=np.int64)
    replicas, unit = np.zeros(experts, dtype=np.int64), np.empty((3, experts), dtype=np.int64)
    many, num_many = np.empty(experts, dtype=np.uint32), np.zeros(1, dtype=np.int64)
    load, vacant = np.zeros(ranks, dtype=np.int64), np.zeros(ranks, dtype=np.int64)
    fresh, missing = np.zeros(ranks, dtype=np.int64), np.zeros(ranks, dtype=np.int64)
    for g in range(ranks):
        for e in range(experts):
            missing[g] += was[g, e]
        for s in range(slots):
            e = held[g, s]
            if e < 0:
                vacant[g] += e == EMPTY
                continue
            replicas[e] += 1
            on[g, e] += 1
            fresh[g] += not was[g, e]
            if on[g, e] == 1:
                num_where[e] += 1
                missing[g] -= was[g, e]
    # Who holds it, who may take it back, one for each transfer, and one more between the two halves of an exchange.
    width = min(ranks, num_where.max() + missing.sum() + limit + 1)
    where = np.empty((experts, width), dtype=np.uint32)
    num_where[:] = 0
    for g in range(ranks):
        for s in range(slots):
            e = held[g, s]
            if e >= 0 and (num_where[e] == 0 or where[e, num_where[e] - 1] != g):
                where[e, num_where[e]] = g
                num_where[e] += 1
    for e in range(experts):
        _weigh(e, weight[e], replicas[e], unit)
        if replicas[e] > 1:
            many[num_many[0]] = e
            num_many[0] += 1
        for k in range(num_where[e]):
            load[where[e, k]] += on[where[e, k], e] * unit[EACH, e]
    cap = load.max()
    layer = Layer(
        held, was, weight, node, home, level, on, where, num_where, replicas, many, num_many, unit, load, vacant,
        fresh, missing, np.empty(experts, dtype=np.int64), np.empty((experts, width), dtype=np.int64),
        np.empty((experts, width), dtype=np.int64), np.zeros(ranks, dtype=np.bool_),
        _shift(max(cap - level, 0), ranks), cap
    )  # fmt: skip
    for e in range(experts):
        _note(layer, e)
    return layer


@inlined
def _shift(most, ranks):
    """Return how many bits to drop so that squares of up to ``most``, one for each rank, add up to less than 2**60."""
    shift = 0
    while (most >> shift) > 0 and (most >> shift) >= np.int64(np.sqrt(2.0**60 / ranks)):
        shift += 1
    return shift


@inlined
def _weigh(e, weight, replicas, unit):
    if replicas == 1:  # most are, and a division costs as much as all the rest
        unit[EACH, e], unit[MORE, e], unit[FEWER, e] = weight, weight >> 1, weight
        return
    unit[EACH, e] = weight // max(replicas, 1)
    unit[MORE, e] = weight // (replicas + 1)
    unit[FEWER, e] = weight // max(replicas - 1, 1)


@inlined
def over(load, level, shift):
    """Return the square of what lies above the level."""
    above = max(load - level, 0) >> shift
    return above * above


@inlined
def _note(layer, e):
    """Note what one replica more of ``e`` would ease, and what would come of it if a rank gave up its only one.

    Then ``burden`` is what the others that hold it would lose, and ``tallest`` what the busiest of them would carry.
    A rank that would exceed ``cap`` counts as ``cap``, so that sums keep their bound; such steps are refused anyway.
    """
    level, shift = layer.level, layer.shift
    ease, fall = np.int64(0), layer.unit[EACH, e] - layer.unit[MORE, e]
    for k in range(layer.num_where[e]):
        r = layer.where[e, k]
        if layer.load[r] > level:
            ease += over(layer.load[r], level, shift) - over(layer.load[r] - layer.on[r, e] * fall, level, shift)
    layer.ease[e] = ease
    if layer.replicas[e] < 2:
        return
    rise = layer.unit[FEWER, e] - layer.unit[EACH, e]
    total, first, second, busiest = np.int64(0), np.int64(0), np.int64(0), -1
    for k in range(layer.num_where[e]):
        r = layer.where[e, k]
        after = layer.load[r] + layer.on[r, e] * rise
        layer.burden[e, k] = over(min(after, layer.cap), level, shift) - over(layer.load[r], level, shift)
        total += layer.burden[e, k]
        if after > first:
            first, second, busiest = after, first, k
        elif after > second:
            second = after
    for k in range(layer.num_where[e]):
        layer.burden[e, k] = total - layer.burden[e, k]
        layer.tallest[e, k] = second if k == busiest else first


@inlined
def note_changed(layer):
    """Note the experts of all ranks that have changed; those of several are noted as often."""
    for r in range(len(layer.changed)):
        if layer.changed[r]:
            layer.changed[r] = False
            for s in range(layer.held.shape[1]):
                e = np.int64(layer.held[r, s])
                if e >= 0:
                    _note(layer, e)


@inlined
def change_replicas(layer, e, by):
    """Let ``e`` have ``by`` replicas more: they weigh something else wherever they are."""
    before = layer.unit[EACH, e]
    layer.replicas[e] += by
    if by == 1 and layer.replicas[e] == 2:
        layer.many[layer.num_many[0]] = e
        layer.num_many[0] += 1
    if by == -1 and layer.replicas[e] == 1:
        layer.num_many[0] -= 1
        m = 0
        while layer.many[m] != e:
            m += 1
        layer.many[m] = layer.many[layer.num_many[0]]
    _weigh(e, layer.weight[e], layer.replicas[e], layer.unit)
    for k in range(layer.num_where[e]):
        r = layer.where[e, k]
        layer.load[r] += layer.on[r, e] * (layer.unit[EACH, e] - before)
        layer.changed[r] = True


@inlined
def put(layer, g, j, e):
    """Put expert ``e``, or nobody, into a slot, whoever is there; return the transfers that this adds."""
    before, old = layer.fresh[g], layer.held[g, j]
    layer.vacant[g] += np.int64(e < 0) - np.int64(old == EMPTY)
    if old >= 0:
        layer.fresh[g] -= not layer.was[g, old]
        layer.load[g] -= layer.unit[EACH, old]
        layer.on[g, old] -= 1
        if layer.on[g, old] == 0:
            layer.missing[g] += layer.was[g, old]
            k = 0
            while layer.where[old, k] != g:
                k += 1
            layer.num_where[old] -= 1
            layer.where[old, k] = layer.where[old, layer.num_where[old]]
    layer.changed[g] = True
    layer.held[g, j] = e if e >= 0 else EMPTY
    if e >= 0:
        layer.fresh[g] += not layer.was[g, e]
        layer.load[g] += layer.unit[EACH, e]
        layer.on[g, e] += 1
        if layer.on[g, e] == 1:
            layer.missing[g] -= layer.was[g, e]
            layer.where[e, layer.num_where[e]] = g
            layer.num_where[e] += 1
    return layer.fresh[g] - before
