"""Descent: exchanges between ranks, each of which lowers the sum of squared rank loads.

Every function stops as soon as no rank is above ``target``, and takes an exchange at once that brings
both its ranks there; otherwise it takes the one that leaves the smaller heavier rank.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.facts import PAIRS, REDEALT, STEPS, SWAPS
from equipoise.descent.layer import MOST_PAIRED, add_load, busiest, exchange, goes_on, may_take, skips, sort_rank
from equipoise.descent.line import level_by_chains, level_by_swaps
from equipoise.descent.redeal import redeal
from equipoise.descent.sorting import sort_ascending
from equipoise.kernels.bits import bits_for
from equipoise.kernels.native import inlined, internal

__all__ = [
    "MANY",
    "descend",
    "exchange_pairs",
    "improve",
    "level_few",
    "level_several",
    "pair_sums",
    "pairs_may_go",
    "redeal_first",
    "swap_pairs",
]

MANY = 128  # ranks; with fewer, single swaps cost less than dealing again
PAIR, PAIR_OF_MANY, FEW_SLOTS = 20, 45, 16  # steps for each pair of a rank with few slots, and with more


@internal
def improve(layer, target, cutoff):
    """Level the ranks until none is above the target or nothing helps the heaviest; cheap means come first.

    Gives up once neither swaps nor pairs bring the heaviest rank below ``cutoff``.
    """
    num_ranks, slots = layer.best.shape
    if slots == 3 or num_ranks >= MANY:
        redeal_first(layer, target)
    if slots > 3:
        level_several(layer, target, cutoff)
    else:
        level_few(layer, target, cutoff)


@internal
def redeal_first(layer, target):
    """Deal one replica of every rank again, where single swaps would be many."""
    if not skips(layer, REDEALT):
        redeal(layer, target)


@internal
def level_several(layer, target, cutoff):
    """Level ranks of more than three slots."""
    slots = layer.best.shape[1]
    while True:
        descend(layer, target)
        heaviest = busiest(layer)
        if heaviest <= target or not goes_on(layer, 0):
            return
        if slots <= MOST_PAIRED and not skips(layer, PAIRS) and swap_pairs(layer, target):
            layer.facts[PAIRS] += 1
        elif heaviest >= cutoff or level_by_swaps(layer, target, cutoff) == 0:
            return


@internal
def level_few(layer, target, cutoff):
    """Level ranks of at most three slots, of which nearly every one is in need of what ``level_by_chains`` does."""
    while busiest(layer) > target and goes_on(layer, 0):
        if level_by_chains(layer, target, cutoff) == 0:
            return


@internal
def descend(layer, target):
    """Swap replicas of the heaviest rank as long as that helps and it is above ``target``."""
    ranks = layer.ranks
    while busiest(layer) > target and goes_on(layer, 0):
        g = ranks.order[-1]
        h, i, j = _find_swap(layer, target)
        if h < 0:
            return
        exchange(ranks, g, i, h, j)
        layer.facts[SWAPS] += 1


@inlined
def _find_swap(layer, target):
    """Return (rank, place on the heaviest, place there) of the best swap of the heaviest rank, or -1.

    For each rank a scan with two pointers over the sorted replicas of both: of each pair the difference wanted is half
    that of the loads.
    """
    ranks = layer.ranks
    value, expert, load, order = ranks.value, ranks.expert, ranks.load, ranks.order
    num_ranks, slots = value.shape
    g = order[num_ranks - 1]
    top = best = load[g]
    best_h = best_i = best_j = np.int64(-1)
    for place in range(num_ranks - 1):
        h = order[place]
        bottom = load[h]
        difference = top - bottom
        if best <= bottom + (difference + 1) // 2:
            break  # this rank and all heavier ones have too little room
        half = difference // 2
        j = 0
        layer.facts[STEPS] += 6 * slots
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
                if not may_take(ranks, h, expert[g, i]) or not may_take(ranks, g, expert[h, k]):
                    continue
                best, best_h, best_i, best_j = heavier, h, i, k
                if best <= target:
                    return best_h, best_i, best_j
    return best_h, best_i, best_j


@internal
def swap_pairs(layer, target):
    """Exchange two replicas of the heaviest rank for two of another; return whether there was such an exchange.

    The sum of a pair and its two places share an integer.
    """
    ranks, sums = layer.ranks, layer.scratch.sums
    value, load, order = ranks.value, ranks.load, ranks.order
    num_ranks, slots = value.shape
    bits = bits_for(slots)
    steps = (PAIR if slots <= FEW_SLOTS else PAIR_OF_MANY) * len(sums[1])
    g = order[num_ranks - 1]
    top = best = load[g]
    best_h = np.int64(-1)
    best_u = best_v = np.int64(0)
    pair_sums(value[g], bits, sums[0], layer.scratch.spare)
    for place in range(num_ranks - 1):
        h = order[place]
        bottom = load[h]
        difference = top - bottom
        if best <= target or best <= bottom + (difference + 1) // 2 or not goes_on(layer, steps):
            break
        half = difference // 2
        pair_sums(value[h], bits, sums[1], layer.scratch.spare)
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
                if pairs_may_go(ranks, g, u, h, v, bits):
                    best, best_h, best_u, best_v = heavier, h, u, v
    if best_h < 0:
        return False
    exchange_pairs(ranks, g, best_u, best_h, best_v, bits)
    return True


@internal
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
def pairs_may_go(ranks, g, u, h, v, bits):
    """Whether rank ``h`` may take the pair ``u`` of rank ``g``, and that rank the pair ``v`` of ``h``."""
    expert = ranks.expert
    mask = (np.int64(1) << bits) - 1
    return (
        may_take(ranks, h, expert[g, (u >> bits) & mask])
        and may_take(ranks, h, expert[g, u & mask])
        and may_take(ranks, g, expert[h, (v >> bits) & mask])
        and may_take(ranks, g, expert[h, v & mask])
    )


@internal
def pair_sums(value, bits, sums, spare):
    """Set ``sums`` to the pairs of one rank, ascending: their load, and in the last ``2 * bits`` bits their places."""
    n = 0
    for i in range(len(value)):
        for j in range(i + 1, len(value)):
            sums[n] = ((value[i] + value[j]) << 2 * bits) | (i << bits) | j
            n += 1
    sort_ascending(sums, spare)
