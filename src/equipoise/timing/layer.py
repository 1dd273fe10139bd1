"""One layer after the other, planned in time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import native
from equipoise.latency.curve import slot_moments, slot_time
from equipoise.timing.bound import (
    least_busiest,
    least_with_company,
    new_sorted,
    raise_by_counting,
    sort_experts,
)
from equipoise.timing.costs import scale_of
from equipoise.timing.deal import count_for, deal
from equipoise.timing.descent import descend
from equipoise.timing.ranks import likely, new_ranks, read_ranks

__all__ = ["Best", "bound_rows", "improve_rows", "plan_rows", "time_rows"]

LARGEST = (0.45, 0.35, 0.27, 0.22, 0.18, 0.15)
"""What a replica may cost at most, in bounds on the busiest rank: each gives other counts."""

FEW = 2
"""So many of these are tried, but where ranks have equally many first replicas, beside which no large one has room."""

CLOSE_ENOUGH = 1.005
"""A bound so near to what is achieved is not raised by counting."""

OF_ONE_STEP = 0.5
"""Of a plan's worth, the part that what the busiest rank of one step takes has, beside the expected time."""


class Best(NamedTuple):
    """The best of each row so far. held int32 [rows, ranks, slots], active replicas, -1 elsewhere; time float64 [rows],
    the expected time of the busiest rank, without what is fixed; worth float64 [rows], what is minimised; limit float64
    [rows], what is slower is not taken.
    """

    held: Any
    time: Any
    worth: Any
    limit: Any


@native
def plan_rows(curve, tokens, best, given, floors, first, max_gap):
    """Plan every row of ``tokens`` float64 [rows, experts] with ever more slots a rank.

    Nothing is taken that is slower than what was found with fewer. Of the slots, ``first`` are for one replica of each
    expert, see ``deal``; 0 stands for all of them. ``given`` float64 [rows] is the time of a plan that is at hand:
    fewer slots with which nothing can be faster are left out. ``floors`` float64 [rows, numbers of slots] is set to
    quick lower bounds for each number of slots a rank, from the fewest that are tried to all there are; those for the
    fewest hold where all slots are active.
    """
    num_ranks, most = best.held.shape[1:]
    fewest = most + 1 - floors.shape[1]
    ordered = new_sorted(tokens.shape[1])
    for row in range(len(tokens)):
        sort_experts(curve, tokens[row], ordered)
        for slots in range(fewest, most + 1):
            floors[row, slots - fewest] = least_busiest(curve, ordered, num_ranks, num_ranks * slots)
        enough = floors[row, -1] * (1.0 + max_gap)
        for slots in range(fewest, most + 1):
            bound = floors[row, slots - fewest]
            if slots < most:
                floors[row, slots - fewest] = max(bound, least_with_company(ordered, num_ranks, slots))
                if floors[row, slots - fewest] >= given[row]:
                    continue
            if best.time[row] <= enough:
                continue
            best.limit[row] = min(best.limit[row], best.time[row])
            ranks = new_ranks(num_ranks, slots, tokens.shape[1])
            _try_counts(ranks, curve, ordered, best, row, (bound, first if first > 0 else slots, max_gap))


@native
def _try_counts(ranks, curve, ordered, best, row, asked):
    """Deal and descend with counts from few to many; ``asked`` is the bound, slots of first replicas, and max_gap."""
    bound, first, max_gap = asked
    num_ranks, slots = ranks.expert.shape
    scale = scale_of(curve, ordered.tokens)
    target = np.int64(bound * (1.0 + max_gap) * scale)
    before, part = 0, LARGEST[0]
    while part < 1.0 and not count_for(curve, ordered.tokens, num_ranks, num_ranks * slots, bound * part, ranks.count):
        part = min(1.0, part * 1.3)
    for i in range(len(LARGEST) if first < slots else FEW):
        time = bound * (part if i == 0 else LARGEST[i]) * (1.0 + 2e-5)
        if not count_for(curve, ordered.tokens, num_ranks, num_ranks * slots, time, ranks.count):
            break
        total = ranks.count.sum()
        if total == before:
            continue
        before = total
        if _work(curve, ordered, ranks.count) >= num_ranks * min(best.limit[row], best.worth[row]):
            break  # and more replicas are more work
        deal(ranks, curve, scale, ordered, first)
        descend(ranks, curve, scale, ordered.tokens, target, num_ranks)
        _keep(ranks, curve, scale, ordered, best, row)
        if ranks.load.max() <= target:
            break


@native
def _work(curve, ordered, count):
    """Return what all active replicas cost together."""
    work = ordered.rest[0]
    for e in range(len(count)):
        if count[e] > 1:
            work += count[e] * slot_time(curve, ordered.tokens[e] / count[e]) - ordered.single[e]
    return work


@native
def time_rows(curve, tokens, held, times):
    """Set ``times`` float64 [rows] to the busiest rank where all of ``held`` int32 [rows, ranks, slots] is active."""
    ranks = new_ranks(held.shape[1], held.shape[2], tokens.shape[1])
    for row in range(len(tokens)):
        scale = scale_of(curve, tokens[row])
        read_ranks(ranks, held[row], curve, scale, tokens[row])
        times[row] = ranks.load.max() / scale


@native
def improve_rows(curve, tokens, best, held, per_node):
    """Descend from ``held`` int32 [rows, ranks, slots], all of it active, into ``best``, whose limit becomes its time.

    Replicas stay among ``per_node`` consecutive ranks.
    """
    ranks, ordered = new_ranks(held.shape[1], held.shape[2], tokens.shape[1]), new_sorted(tokens.shape[1])
    for row in range(len(tokens)):
        for e in range(tokens.shape[1]):
            time, spread, chance = slot_moments(curve, tokens[row, e])
            ordered.expert[e], ordered.tokens[e], ordered.single[e] = e, tokens[row, e], time
            ordered.spread[e], ordered.full[e] = spread, time / chance if chance > 0.0 else 0.0
        scale = scale_of(curve, tokens[row])
        read_ranks(ranks, held[row], curve, scale, tokens[row])
        best.limit[row], best.worth[row] = ranks.load.max() / scale, np.inf
        _keep(ranks, curve, scale, ordered, best, row)
        descend(ranks, curve, scale, tokens[row], np.int64(0), per_node)
        _keep(ranks, curve, scale, ordered, best, row)


@native
def bound_rows(curve, tokens, num_ranks, num_slots, achieved, bounds):
    """Set ``bounds`` float64 [rows] to lower bounds on the busiest rank, without what is fixed, as ``achieved`` is."""
    ordered = new_sorted(tokens.shape[1])
    for row in range(len(tokens)):
        sort_experts(curve, tokens[row], ordered)
        bound = min(least_busiest(curve, ordered, num_ranks, num_slots), achieved[row])
        bounds[row] = bound
        if bound * CLOSE_ENOUGH < achieved[row]:
            bounds[row] = raise_by_counting(curve, ordered, num_ranks, num_slots, bound, achieved[row])


@native
def _keep(ranks, curve, scale, ordered, best, row):
    """Keep the active replicas if they are worth more than the best so far and no slower than the limit."""
    time = ranks.load.max() / scale
    if time > best.limit[row] or time >= best.worth[row]:
        return
    worth = time + OF_ONE_STEP * (likely(ranks, curve, ordered) - time)
    if worth >= best.worth[row]:
        return
    best.time[row], best.worth[row] = time, worth
    best.held[row] = -1
    for g in range(ranks.expert.shape[0]):
        at, behind = 0, ranks.expert.shape[1] - ranks.extra[g].sum()  # the slots of first replicas come first
        for s in range(ranks.expert.shape[1]):
            e = ranks.expert[g, s]
            if e >= 0 and ranks.extra[g, s]:
                best.held[row, g, behind] = ordered.expert[e]
                behind += 1
            elif e >= 0:
                best.held[row, g, at] = ordered.expert[e]
                at += 1
