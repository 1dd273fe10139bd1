"""Finish a placement that is nearly level: fill ranks to the target exactly, so that the room left over gathers.

Levelling spreads the room below the target evenly, and where ranks hold few replicas no exchange fits into so little.
Here the heaviest rank is brought just below the target and then left alone, whoever takes what it sheds; whoever
that made too heavy is next. Each rank that is passed on the way fills up, which uses its room, and the way ends
where what is passed on fits. ``deal_again`` makes another placement to begin with.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.improve import exchange_pairs, pair_sums, pairs_may_go
from equipoise.descent.state import bits_for, exchange, holds, set_ranks, sort_ascending
from equipoise.kernels.native import native
from equipoise.kernels.separate.numba import separate

__all__ = ["deal_again", "squeeze"]

WASTE = 3  # room left on a full rank is lost; load that its partner has too much, which can still be shed, weighs less


@native
def squeeze(ranks, target, space):
    """Fill ranks up until none is above ``target``, or none can be; return whether that succeeded.

    Where it fails, the heaviest rank may be heavier than before.
    """
    value, load, order = ranks.value, ranks.load, ranks.order
    parts, full, spare = space.parts, space.full, space.spare
    num_ranks, slots = value.shape
    bits = bits_for(slots)
    mask = (np.int64(1) << bits) - 1
    room = np.int64(0)  # of all ranks that are not full
    for g in range(num_ranks):
        full[g] = False
        room += target - load[g]
        _set_parts(value[g], bits, parts[g], spare)
    while room >= 0:
        at = num_ranks - 1
        while full[order[at]]:
            at -= 1
        g = order[at]
        if load[g] <= target:
            return True
        h, u, v = _fill(ranks, target, g, bits, parts, full, room)
        if h < 0:
            return False
        if (u >> bits) & mask == u & mask:
            exchange(ranks, g, u & mask, h, v & mask)
        else:
            exchange_pairs(ranks, g, u, h, v, bits)
        full[g] = True
        room -= target - load[g]
        _set_parts(value[h], bits, parts[h], spare)
    return False


@native
def _set_parts(value, bits, parts, spare):
    """Set ``parts`` to the replicas of one rank, then the pairs of them, written as ``pair_sums`` does."""
    slots = len(value)
    for i in range(slots):
        parts[i] = (value[i] << 2 * bits) | (i << bits) | i
    if slots > 3:  # otherwise pairs for pairs are as good as the rest for the rest
        pair_sums(value, bits, parts[slots:], spare)


@native
def _fill(ranks, target, g, bits, parts, full, room):
    """Return (rank, part of ``g``, part of that rank) to exchange so that ``g`` is just below ``target``, or -1.

    Of all exchanges with ranks that are not full, the one that wastes least and loads its partner least.
    """
    load, order = ranks.load, ranks.order
    slots = ranks.value.shape[1]
    need = load[g] - target
    best, best_h, best_u, best_v = WASTE * (room + 1), -1, np.int64(0), np.int64(0)
    for h in order:
        over = max(load[h] + need - target, 0)
        if over >= best:
            break
        if full[h] or h == g:
            continue
        for low, high in ((0, slots), (slots, parts.shape[1] if slots > 3 else slots)):
            j = high - 1
            for i in range(high - 1, low - 1, -1):
                u = parts[g, i]
                while j >= low and (u >> 2 * bits) - (parts[h, j] >> 2 * bits) < need:
                    j -= 1
                for k in range(j, low - 1, -1):
                    v = parts[h, k]
                    waste = (u >> 2 * bits) - (v >> 2 * bits) - need
                    cost = WASTE * waste + max(load[h] + need + waste - target, 0)
                    if cost >= best:
                        break
                    if pairs_may_go(ranks.expert, ranks.replicas, g, u, h, v, bits):
                        best, best_h, best_u, best_v = cost, h, u, v
                        break
    return best_h, best_u, best_v


@native
def deal_again(ranks, weight, target, p, q, space):
    """Take the replicas at places ``p`` and ``q`` from all ranks, and deal them again to fill rank after rank.

    The rank with least room for them comes first, and takes the two, one of each place, that fill it best without
    passing ``target``.
    """
    value, expert, load = ranks.value, ranks.expert, ranks.load
    keys, spare = space.keys, space.spare
    num_ranks = len(load)
    first, first_expert, second, second_expert = space.pool
    _collect(value[:, p], expert[:, p], first, first_expert, keys, spare)
    _collect(value[:, q], expert[:, q], second, second_expert, keys, spare)
    bits = bits_for(num_ranks)
    for g in range(num_ranks):
        load[g] -= value[g, p] + value[g, q]
        expert[g, p] = expert[g, q] = -1
        keys[g] = (load[g] << bits) | g
    sort_ascending(keys[:num_ranks], spare)
    clean = True
    for left in range(num_ranks, 0, -1):
        g = keys[left - 1] & ((np.int64(1) << bits) - 1)
        i, j = _fullest(ranks, g, target - load[g], left, first, first_expert, second, second_expert)
        clean &= i >= 0
        if i < 0:
            i = j = left - 1
        expert[g, p], expert[g, q] = first_expert[i], second_expert[j]
        for at in range(i, left - 1):
            first[at], first_expert[at] = first[at + 1], first_expert[at + 1]
        for at in range(j, left - 1):
            second[at], second_expert[at] = second[at + 1], second_expert[at + 1]
    if not clean:
        separate(expert, weight)
    set_ranks(ranks, weight, keys, spare)


@native
def _collect(value, expert, size, name, keys, spare):
    """Set ``size`` and ``name`` to the replicas at one place of all ranks, the largest first."""
    num_ranks = len(value)
    bits = bits_for(num_ranks)
    for g in range(num_ranks):
        keys[g] = (value[g] << bits) | g
    sort_ascending(keys[:num_ranks], spare)
    for i in range(num_ranks):
        g = keys[num_ranks - 1 - i] & ((np.int64(1) << bits) - 1)
        size[i], name[i] = value[g], expert[g]


@native
def _fullest(ranks, g, room, left, first, first_expert, second, second_expert):
    """Return which of the ``left`` first and second replicas fill ``room`` best; -1 if no two fit."""
    expert, replicas = ranks.expert, ranks.replicas
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
        if e != f and (replicas[e] == 1 or not holds(expert[g], e)) and (replicas[f] == 1 or not holds(expert[g], f)):
            best, best_i, best_j = rest, i, j
    return best_i, best_j
