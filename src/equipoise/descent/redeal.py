"""Take one replica from every rank and deal them again: many swaps at once, for a start that is far from level.

The largest goes to the rank with least left, and so on. No other way to deal them makes the sum of squared rank loads
less, nor the heaviest rank lighter, so that whatever is taken, nothing gets worse. What is taken changes from round to
round.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.counts import total_load
from equipoise.descent.facts import NEVER, REDEALT
from equipoise.descent.layer import busiest, goes_on, holds, order_ranks, sort_rank
from equipoise.descent.sorting import sort_ascending
from equipoise.kernels.bits import bits_for
from equipoise.kernels.native import internal

__all__ = ["redeal"]

ROUNDS = 9
MIXED = 3  # rounds to begin with that take from neighbouring ranks different places
IDLE = 3  # rounds in a row that do not lower the heaviest rank: something else keeps it heavy
ENOUGH = 3  # above the target, in mean room below it: single swaps are cheaper from here on


@internal
def redeal(layer, target):
    """Deal one replica of every rank again, at most ``ROUNDS`` times; the heaviest rank is never heavier for it."""
    ranks = layer.ranks
    num_ranks, slots = ranks.expert.shape
    heaviest = busiest(layer)
    enough = target + ENOUGH * (target - total_load(ranks.load) // num_ranks)
    rounds = idle = np.int64(0)
    while heaviest > enough and rounds < ROUNDS and idle < IDLE and goes_on(layer, num_ranks * (slots + 20)):
        _choose(rounds, slots, layer.scratch.pool[4])
        after = _deal(ranks, heaviest, layer.scratch)
        idle = 0 if after < heaviest else idle + 1
        layer.facts[REDEALT] += after < heaviest
        heaviest = after
        rounds += 1
    if rounds > 0:
        for g in range(num_ranks):
            sort_rank(ranks.value[g], ranks.expert[g])
        order_ranks(ranks, layer.scratch)


@internal
def _choose(number, slots, place):
    """Set which replica of each rank is dealt again: the same place of all, or, first and in between, a mixture."""
    i = (number if number < MIXED else number // 2) % slots
    period = 1 if number < MIXED else 1 << number % 4  # ranks in a row with the same place
    for g in range(len(place)):
        place[g] = i
        if (number < MIXED or number % 2 == 0) and (g + 1) & (period - 1) == 0:
            i = i + 1 if i + 1 < slots else 0


@internal
def _deal(ranks, heaviest, scratch):
    """Deal again once, unless replicas of one expert are in each other's way; return the heaviest rank.

    The places that are dealt are in the last row of the pool. Ranks are not kept sorted.
    """
    value, expert, load = ranks.value, ranks.expert, ranks.load
    num_ranks = len(load)
    bits = bits_for(num_ranks)
    mask = (1 << bits) - 1
    pool = scratch.pool
    size, name, rest, taken, place = pool[0], pool[1], pool[2], pool[3], pool[4]
    by_size = scratch.keys[:num_ranks]
    for g in range(num_ranks):
        by_size[g] = (value[g, place[g]] << bits) | g
        taken[g] = expert[g, place[g]]
        expert[g, place[g]] = -1
    sort_ascending(by_size, scratch.spare)
    for k in range(num_ranks):
        g, size[k] = by_size[num_ranks - 1 - k] & mask, by_size[num_ranks - 1 - k] >> bits
        rest[k], name[k] = ((load[g] - size[k]) << bits) | g, taken[g]
    sort_ascending(rest, scratch.spare)
    clashes = 0
    after = np.int64(0)
    for k in range(num_ranks):
        clashes += np.int64(holds(expert, rest[k] & mask, name[k]))
        after = max(after, (rest[k] >> bits) + size[k])
    if clashes > 0 and after < heaviest:
        after = _part(expert, rest, mask, bits, name, size)
    if after >= heaviest:
        for g in range(num_ranks):
            expert[g, place[g]] = taken[g]
        return heaviest
    for k in range(num_ranks):
        h = rest[k] & mask
        load[h] = (rest[k] >> bits) + size[k]
        value[h, place[h]], expert[h, place[h]] = size[k], name[k]
    return after


@internal
def _part(expert, rest, mask, bits, name, size):
    """Let ranks that would get an expert twice change with the nearest that they can; return the heaviest rank."""
    num_ranks = len(rest)
    after = np.int64(0)
    for k in range(num_ranks):
        h = rest[k] & mask
        if holds(expert, h, name[k]):
            for step in range(1, num_ranks):
                j = k + step if k + step < num_ranks else num_ranks - 1 - step  # those that come later first
                if not holds(expert, h, name[j]) and (j > k or not holds(expert, rest[j] & mask, name[k])):
                    name[k], name[j] = name[j], name[k]
                    size[k], size[j] = size[j], size[k]
                    after = max(after, (rest[j] >> bits) + size[j] if j < k else 0)
                    break
            else:
                return NEVER
        after = max(after, (rest[k] >> bits) + size[k])
    return after
