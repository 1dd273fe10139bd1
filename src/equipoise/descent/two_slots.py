"""First descents where ranks have two slots: the counts decide nearly everything, and swaps only mend what is left."""

from __future__ import annotations

import numpy as np

from equipoise.descent.improve import improve, keep
from equipoise.descent.pairing import pair, search_counts
from equipoise.descent.start import count_least_largest, set_target
from equipoise.descent.state import FEW, NEVER, PAIRED, new_ranks, new_space, set_ranks, unpack
from equipoise.kernels.native import native, spliced
from equipoise.kernels.separate.numba import separate

__all__ = ["descend_first"]

TRIES = np.array([3, 4, 16])  # values of T, by effort


@native
def descend_first(by_load, bits, floor, max_gap, effort, aims, target, held, busiest, passed, stages):
    """Fill ``held`` with first descents; ``aims`` is set where a search beyond them makes sense, and -1 elsewhere.

    ``passed`` is set where the plain answer is no better: it pairs the same counts as the search begins with.
    """
    _, num_ranks, slots = held.shape
    experts = by_load.shape[1]
    weight, names = np.empty(experts, np.int64), np.empty(experts, np.int32)
    ranks, best = new_ranks(num_ranks, slots, experts), np.empty((num_ranks, slots), np.int64)
    space = new_space(num_ranks, slots, experts, 0)
    for row in range(len(by_load)):
        unpack(by_load[row], bits, weight, names)
        busiest[row], target[row], aims[row], plain = _descend_row(
            weight, floor[row], max_gap, effort, ranks, best, space, stages[row]
        )
        passed[row] = busiest[row] <= plain
        for g in range(num_ranks):
            for s in range(slots):
                held[row, g, s] = names[best[g, s]]


@spliced
def _descend_row(weight, floor, max_gap, effort, ranks, best, space, stages):
    """Fill ``best`` [ranks, 2] with the best of the pairings that ``effort`` and every smaller one find.

    Returns the busiest rank, the target, what a search beyond may aim for, or -1 for no search, and the heaviest pair
    of the counts that make the largest replica least. Where no pair had to be parted, no other placement of the same
    counts is better, and all counts are tried only where slots are few. Smaller efforts may have had to part fewer.
    """
    num_ranks = len(best)
    _, bound, target = set_target(weight, num_ranks, 2, floor, max_gap, ranks.replicas)
    plain = pair(weight, ranks.replicas, ranks.expert, space.keys, space.spare)
    aim = reached = NEVER
    for attempt in range(effort + 1):
        tries = TRIES[effort if attempt == 0 else attempt - 1]
        count_least_largest(weight, 2 * num_ranks, num_ranks, ranks.replicas)
        stages[PAIRED] += search_counts(
            weight, bound, max_gap, tries, ranks.replicas, ranks.expert, space.keys, space.spare
        )
        paired = pair(weight, ranks.replicas, ranks.expert, space.keys, space.spare)
        separate(ranks.expert, weight)
        set_ranks(ranks, weight, space.keys, space.spare)
        if ranks.load[ranks.order[-1]] > paired:
            improve(ranks, target, NEVER, space, stages)
        heaviest = ranks.load[ranks.order[-1]]
        if attempt < 2:
            aim = heaviest
        if heaviest < reached:
            reached = keep(ranks, best)
        if attempt == 0 and reached <= paired and (reached <= target or 2 * num_ranks > FEW):
            return reached, target, np.int64(-1), plain
    return reached, target, aim if reached > target else np.int64(-1), plain
