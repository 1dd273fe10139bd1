"""Descent: exchanges between ranks, each of which lowers the sum of squared rank loads.

Every function stops as soon as no rank is above ``target``, and takes an exchange at once that brings
both its ranks there; otherwise it takes the one that leaves the smaller heavier rank.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.line import level
from equipoise.descent.redeal import redeal
from equipoise.descent.state import (
    MOST_PAIRED,
    PAIRS,
    SWAPS,
    add_load,
    bits_for,
    copy_table,
    exchange,
    holds,
    set_ranks,
    sort_ascending,
    sort_rank,
)
from equipoise.kernels.native import inlined, native

MANY = 128  # ranks; with fewer, single swaps cost less than dealing again

__all__ = [
    "convert",
    "descend",
    "exchange_pairs",
    "improve",
    "keep",
    "pair_sums",
    "pairs_may_go",
    "squared_excess",
    "swap_pairs",
]


@native
def improve(ranks, target, cutoff, space, stages):
    """Level the ranks until none is above the target or nothing helps the heaviest; cheap means come first.

    Gives up once neither swaps nor pairs bring the heaviest rank below ``cutoff``.
    """
    num_ranks, slots = ranks.expert.shape
    if slots == 3 or num_ranks >= MANY:
        redeal(ranks, target, space.pool, space.keys, space.spare)
    while True:
        if slots > 3:  # with fewer, nearly every rank is in need of what ``level`` does
            stages[SWAPS] += descend(ranks, target)
        heaviest = ranks.load[ranks.order[num_ranks - 1]]
        if heaviest <= target:
            return
        if 3 < slots <= MOST_PAIRED and swap_pairs(ranks, target, space):
            stages[PAIRS] += 1
            continue
        if slots > 3 and heaviest >= cutoff:
            return
        if level(ranks, target, cutoff, space, stages) == 0:
            return


@native
def keep(ranks, best):
    """Copy the placement of ``ranks`` and return its busiest rank."""
    copy_table(ranks.expert, best)
    return ranks.load[ranks.order[-1]]


@native
def descend(ranks, target):
    """Swap replicas of the heaviest rank as long as that helps and it is above ``target``; return the swaps."""
    load, order = ranks.load, ranks.order
    last, swaps = len(order) - 1, 0
    while load[order[last]] > target:
        g = order[last]
        h, i, j = _find_swap(ranks, target)
        if h < 0:
            break
        exchange(ranks, g, i, h, j)
        swaps += 1
    return swaps


@inlined
def _find_swap(ranks, target):
    """Return (rank, place on the heaviest, place there) of the best swap of the heaviest rank, or -1."""
    value, expert, load, order, replicas = ranks.value, ranks.expert, ranks.load, ranks.order, ranks.replicas
    num_ranks, slots = value.shape
    g = order[num_ranks - 1]
    top = best = load[g]
    best_h = best_i = best_j = -1
    for place in range(num_ranks - 1):
        h = order[place]
        bottom = load[h]
        difference = top - bottom
        if best <= bottom + (difference + 1) // 2:
            break  # this rank and all heavier ones have too little room
        half = difference // 2
        j = 0
        for i in range(slots):
            u = value[g, i]
            while j < slots and value[h, j] < u - half:
                j += 1
            for k in (j, j - 1):
                if k < 0 or k >= slots:
                    continue
                d = u - value[h, k]
                heavier = max(top - d, bottom + d)
                if d <= 0 or heavier >= best:
                    continue
                e, f = expert[g, i], expert[h, k]
                if (replicas[e] > 1 and holds(expert[h], e)) or (replicas[f] > 1 and holds(expert[g], f)):
                    continue
                best, best_h, best_i, best_j = heavier, h, i, k
                if best <= target:
                    return best_h, best_i, best_j
    return best_h, best_i, best_j


@native
def swap_pairs(ranks, target, space):
    """Exchange two replicas of the heaviest rank for two of another; return whether there was such an exchange.

    The sum of a pair and its two places share an integer.
    """
    value, expert, load, order, replicas = ranks.value, ranks.expert, ranks.load, ranks.order, ranks.replicas
    num_ranks, slots = value.shape
    bits = bits_for(slots)
    g = order[num_ranks - 1]
    top = best = load[g]
    best_h = np.int64(-1)
    best_u = best_v = np.int64(0)
    sums = space.sums
    pair_sums(value[g], bits, sums[0], space.spare)
    for place in range(num_ranks - 1):
        h = order[place]
        bottom = load[h]
        difference = top - bottom
        if best <= target or best <= bottom + (difference + 1) // 2:
            break
        half = difference // 2
        pair_sums(value[h], bits, sums[1], space.spare)
        j = 0
        for u in sums[0]:
            while j < len(sums[1]) and (sums[1, j] >> 2 * bits) < (u >> 2 * bits) - half:
                j += 1
            for k in (j, j - 1):
                if k < 0 or k >= len(sums[1]):
                    continue
                v = sums[1, k]
                d = (u >> 2 * bits) - (v >> 2 * bits)
                heavier = max(top - d, bottom + d)
                if d <= 0 or heavier >= best:
                    continue
                if pairs_may_go(expert, replicas, g, u, h, v, bits):
                    best, best_h, best_u, best_v = heavier, h, u, v
    if best_h < 0:
        return False
    exchange_pairs(ranks, g, best_u, best_h, best_v, bits)
    return True


@native
def exchange_pairs(ranks, g, u, h, v, bits):
    """Swap the pair ``u`` of rank ``g``, as ``pair_sums`` writes it, with the pair ``v`` of rank ``h``."""
    value, expert = ranks.value, ranks.expert
    mask = (np.int64(1) << bits) - 1
    for i, j in (((u >> bits) & mask, (v >> bits) & mask), (u & mask, v & mask)):
        value[g, i], value[h, j] = value[h, j], value[g, i]
        expert[g, i], expert[h, j] = expert[h, j], expert[g, i]
    d = (u >> 2 * bits) - (v >> 2 * bits)
    for rank, more in ((g, -d), (h, d)):
        sort_rank(value[rank], expert[rank])
        add_load(ranks, rank, more)


@inlined
def pairs_may_go(expert, replicas, g, u, h, v, bits):
    """Whether rank ``h`` may hold the pair ``u`` of rank ``g``, and that rank the pair ``v`` of ``h``."""
    mask = (np.int64(1) << bits) - 1
    return (
        _may_go(expert, replicas, g, (u >> bits) & mask, h)
        and _may_go(expert, replicas, g, u & mask, h)
        and _may_go(expert, replicas, h, (v >> bits) & mask, g)
        and _may_go(expert, replicas, h, v & mask, g)
    )


@inlined
def _may_go(expert, replicas, g, i, h):
    """Whether rank ``h`` may hold the expert at place ``i`` of rank ``g``."""
    e = expert[g, i]
    return replicas[e] == 1 or not holds(expert[h], e)


@native
def pair_sums(value, bits, sums, spare):
    """Set ``sums`` to the pairs of one rank, ascending: their load, and in the last ``2 * bits`` bits their places."""
    n = 0
    for i in range(len(value)):
        for j in range(i + 1, len(value)):
            sums[n] = ((value[i] + value[j]) << 2 * bits) | (i << bits) | j
            n += 1
    sort_ascending(sums, spare)


@native
def convert(ranks, weight, target, keys, spare):
    """Take one slot from an expert for another; return whether there was a slot to take.

    Of all slots whose expert has another replica, and all experts of the heaviest rank (and, for a slot
    on the heaviest rank, all experts), make the conversion after which the squared excess over
    ``target``, summed over the ranks, is least, even if that is more than before: the swaps that
    follow decide whether it was worth it.
    """
    value, expert, load, order, replicas = ranks.value, ranks.expert, ranks.load, ranks.order, ranks.replicas
    num_ranks, slots = value.shape
    g = order[num_ranks - 1]
    excess = 0.0
    for k in range(num_ranks):
        excess += squared_excess(load[k], target)
    best = np.inf
    best_h = best_s = best_a = -1
    for h in range(num_ranks):
        for s in range(slots):
            b = expert[h, s]
            if replicas[b] < 2:
                continue
            for i in range(slots if h != g else len(weight)):
                a = expert[g, i] if h != g else i
                if a == b or replicas[a] >= num_ranks or holds(expert[h], a):
                    continue
                after = excess + _excess_change(ranks, weight, target, a, b, h)
                if after < best:
                    best, best_h, best_s, best_a = after, h, s, a
    if best_h < 0:
        return False
    replicas[expert[best_h, best_s]] -= 1
    replicas[best_a] += 1
    expert[best_h, best_s] = best_a
    set_ranks(ranks, weight, keys, spare)
    return True


@native
def squared_excess(load, target):
    """Return the square of what a rank carries above ``target``."""
    over = np.float64(max(load - target, 0))
    return over * over


@native
def _excess_change(ranks, weight, target, a, b, h):
    """Return by how much the squared excess changes if expert ``a`` takes the slot of ``b`` on rank ``h``."""
    expert, load, replicas = ranks.expert, ranks.load, ranks.replicas
    old_a, new_a = weight[a] // replicas[a], weight[a] // (replicas[a] + 1)
    old_b, new_b = weight[b] // replicas[b], weight[b] // (replicas[b] - 1)
    change = 0.0
    for k in range(len(load)):
        delta = new_a - old_b if k == h else np.int64(0)
        if k != h:
            for e in expert[k]:
                if e == a:
                    delta += new_a - old_a
                elif e == b:
                    delta += new_b - old_b
        if delta != 0:
            change += squared_excess(load[k] + delta, target) - squared_excess(load[k], target)
    return change
