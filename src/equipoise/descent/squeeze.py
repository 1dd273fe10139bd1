"""Finish a placement that is nearly level: fill ranks to the target exactly, so that the room left over gathers.

Levelling spreads the room below the target evenly, and where ranks hold few replicas no exchange fits into so little.
Here the heaviest rank is brought just below the target and then left alone, whoever takes what it sheds; whoever
that made too heavy is next. Each rank that is passed on the way fills up, which uses its room, and the way ends
where what is passed on fits. ``deal_again`` makes another placement to begin with.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.facts import STEPS
from equipoise.descent.layer import exchange, goes_on, may_take, set_ranks
from equipoise.descent.sorting import sort_ascending
from equipoise.descent.swaps import exchange_pairs, pair_sums, pairs_may_go
from equipoise.kernels.bits import bits_for
from equipoise.kernels.native import internal
from equipoise.kernels.separate.numba import separate

__all__ = ["deal_again", "squeeze"]

WASTE = 3  # room left on a full rank is lost; load that its partner has too much, which can still be shed, weighs less


@internal
def squeeze(layer, target):
    """Fill ranks up until none is above ``target``, or none can be; return whether that succeeded.

    For layers with more than three slots a rank: with fewer, pairs for pairs are as good as the rest for the rest.
    Where it fails, the heaviest rank may be heavier than before.
    """
    ranks, parts, full = layer.ranks, layer.scratch.parts, layer.scratch.full
    value, load, order = ranks.value, ranks.load, ranks.order
    num_ranks, slots = value.shape
    bits = bits_for(slots)
    mask = (np.int64(1) << bits) - 1
    room = np.int64(0)  # of all ranks that are not full
    for g in range(num_ranks):
        full[g] = False
        room += target - load[g]
        layer.facts[STEPS] += 10 * parts.shape[1]
        _set_parts(value[g], bits, parts[g], layer.scratch.spare)
    while room >= 0 and goes_on(layer, 0):
        at = num_ranks - 1
        while full[order[at]]:
            at -= 1
        g = order[at]
        if load[g] <= target:
            return True
        h, u, v = _fill(layer, target, g, room)
        if h < 0:
            return False
        if (u >> bits) & mask == u & mask:
            exchange(ranks, g, u & mask, h, v & mask)
        else:
            exchange_pairs(ranks, g, u, h, v, bits)
        full[g] = True
        room -= target - load[g]
        _set_parts(value[h], bits, parts[h], layer.scratch.spare)
    return False


@internal
def _set_parts(value, bits, parts, spare):
    """Set ``parts`` to the replicas of one rank, then the pairs of them, written as ``pair_sums`` does."""
    slots = len(value)
    for i in range(slots):
        parts[i] = (value[i] << 2 * bits) | (i << bits) | i
    pair_sums(value, bits, parts[slots:], spare)


@internal
def _fill(layer, target, g, room):
    """Return (rank, part of ``g``, part of that rank) to exchange so that ``g`` is just below ``target``, or -1.

    Of all exchanges with ranks that are not full, the one that wastes least and loads its partner least.
    """
    ranks, parts, full = layer.ranks, layer.scratch.parts, layer.scratch.full
    load, slots = ranks.load, ranks.value.shape[1]
    bits = bits_for(slots)
    need = load[g] - target
    best, best_h, best_u, best_v = WASTE * (room + 1), -1, np.int64(0), np.int64(0)
    for h in ranks.order:
        over = max(load[h] + need - target, 0)
        if over >= best:
            break
        if full[h] or h == g:
            continue
        for low, high in ((0, slots), (slots, parts.shape[1])):
            j = high - 1
            layer.facts[STEPS] += 3 * (high - low)
            for i in range(high - 1, low - 1, -1):
                u = parts[g, i]
                while j >= low and (u >> 2 * bits) - (parts[h, j] >> 2 * bits) < need:
                    j -= 1
                for k in range(j, low - 1, -1):
                    v = parts[h, k]
                    waste = (u >> 2 * bits) - (v >> 2 * bits) - need
                    cost = WASTE * waste + max(load[h] + need + waste - target, 0)
                    layer.facts[STEPS] += 5
                    if cost >= best:
                        break
                    if pairs_may_go(ranks, g, u, h, v, bits):
                        best, best_h, best_u, best_v = cost, h, u, v
                        break
    return best_h, best_u, best_v


@internal
def deal_again(layer, target, p, q):
    """Take the replicas at places ``p`` and ``q`` from all ranks, and deal them again to fill rank after rank.

    The rank with least room for them comes first, and takes the two, one of each place, that fill it best without
    passing ``target``.
    """
    ranks, keys = layer.ranks, layer.scratch.keys
    value, expert, load = ranks.value, ranks.expert, ranks.load
    num_ranks = len(load)
    pool = layer.scratch.pool
    first, first_expert, second, second_expert = pool[0], pool[1], pool[2], pool[3]
    _collect(value[:, p], expert[:, p], first, first_expert, layer.scratch)
    _collect(value[:, q], expert[:, q], second, second_expert, layer.scratch)
    bits = bits_for(num_ranks)
    for g in range(num_ranks):
        load[g] -= value[g, p] + value[g, q]
        expert[g, p] = expert[g, q] = -1
        keys[g] = (load[g] << bits) | g
    sort_ascending(keys[:num_ranks], layer.scratch.spare)
    clean = True
    for left in range(num_ranks, 0, -1):
        g = keys[left - 1] & ((np.int64(1) << bits) - 1)
        i, j = _fullest(ranks, g, target - load[g], left, layer.scratch.pool)
        clean &= i >= 0
        if i < 0:
            i = j = left - 1
        expert[g, p], expert[g, q] = first_expert[i], second_expert[j]
        for at in range(i, left - 1):
            first[at], first_expert[at] = first[at + 1], first_expert[at + 1]
        for at in range(j, left - 1):
            second[at], second_expert[at] = second[at + 1], second_expert[at + 1]
    if not clean:
        separate(expert, layer.weight, layer.scratch.spare)
    set_ranks(layer)


@internal
def _collect(value, expert, size, name, scratch):
    """Set ``size`` and ``name`` to the replicas at one place of all ranks, the largest first."""
    num_ranks, keys = len(value), scratch.keys
    bits = bits_for(num_ranks)
    for g in range(num_ranks):
        keys[g] = (value[g] << bits) | g
    sort_ascending(keys[:num_ranks], scratch.spare)
    for i in range(num_ranks):
        g = keys[num_ranks - 1 - i] & ((np.int64(1) << bits) - 1)
        size[i], name[i] = value[g], expert[g]


@internal
def _fullest(ranks, g, room, left, pool):
    """Return which of the ``left`` first and second replicas in ``pool`` fill ``room`` best; -1 if no two fit."""
    first, first_expert, second, second_expert = pool[0], pool[1], pool[2], pool[3]
    best, best_i, best_j = room + 1, -1, -1
    j = left
    for i in range(left):
        while j > 0 and first[i] + second[j - 1] <= room:
            j -= 1
        if j == left:
            continue
        rest = room - first[i] - second[j]
        if rest >= best:
            continue
        e, f = first_expert[i], second_expert[j]
        if e != f and may_take(ranks, g, e) and may_take(ranks, g, f):
            best, best_i, best_j = rest, i, j
    return best_i, best_j
