"""One layer after the other, planned in time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import allocating, native
from equipoise.latency.curve import slot_time
from equipoise.timing.bound import CLOSE, least_busiest, least_with_company, raise_by_counting
from equipoise.timing.costs import scale_of
from equipoise.timing.deal import count_for, deal
from equipoise.timing.descent import descend
from equipoise.timing.order import row_of
from equipoise.timing.ranks import cost_replicas, likely, new_ranks, read_ranks

__all__ = ["Asked", "Best", "bound_rows", "descend_rows", "floor_rows", "plan_rows", "apart_rows", "time_rows"]

LARGEST = (0.45, 0.4)
"""What a replica may cost at most, in bounds on the busiest rank: each gives other counts."""

WELL = 1.04
"""One of these is tried where that comes so near to the bound."""

CLOSE_ENOUGH = 1.005
"""A bound so near to what is achieved is not raised by counting."""

OF_ONE_STEP = 0.55
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


class Asked(NamedTuple):
    """What some rows are asked for.

    shape, ranks and slots a rank; rows int64 [asked], which rows they are; given float64 [asked], a time of the busiest
    rank that is at hand; bound float64 [asked], one on any plan; by_time, whether the fastest plan is kept, whatever
    it is worth: no plan with more slots may be slower.
    """

    shape: Any
    rows: Any
    given: Any
    bound: Any
    by_time: Any


@native
def time_rows(curve, ordered, rows, held, times):
    """Set ``times`` float64 [asked] to the busiest rank's with all of ``held`` int32 [asked, ranks, slots] active."""
    count, each = np.empty((2, ordered.tokens.shape[1]), np.int64)
    for at in range(len(rows)):
        row = row_of(ordered, rows[at])
        scale = scale_of(curve, row.tokens[0])
        cost_replicas(held[at], curve, scale, row, count, each)
        most = 0
        for g in range(held.shape[1]):
            load = 0
            for s in range(held.shape[2]):
                load += each[held[at, g, s]]
            most = max(most, load)
        times[at] = most / scale


@native
def floor_rows(curve, ordered, rows, shape, floors):
    """Set ``floors`` float64 [asked] to quick bounds on any plan for a ``shape`` of ranks and slots a rank."""
    for at in range(len(rows)):
        floors[at] = _floor(curve, row_of(ordered, rows[at]), shape)


@allocating
def _floor(curve, ordered, shape):
    num_ranks, slots = shape
    least = least_busiest(curve, ordered, num_ranks, num_ranks * slots)
    return max(least, least_with_company(ordered, num_ranks, slots))


@native
def plan_rows(curve, ordered, best, asked, max_gap):
    """Plan some rows with ``asked`` slots a rank, beside what was found with fewer; set ``asked.bound``.

    Nothing is taken that is slower than that, or than ``asked.given``.
    """
    num_ranks, slots = asked.shape
    ranks = new_ranks(num_ranks, slots, ordered.tokens.shape[1])
    for at in range(len(asked.rows)):
        row = asked.rows[at]
        layer, bound = row_of(ordered, row), asked.bound[at]
        if best.time[row] < np.inf:
            asked.bound[at] = raise_by_counting(curve, layer, num_ranks, num_ranks * slots, bound, best.time[row])
        enough = asked.bound[at] * (1.0 + max_gap)
        if best.time[row] > enough:
            best.limit[row] = min(asked.given[at], best.time[row])
            target = np.int64(enough * scale_of(curve, layer.tokens[0]))
            _try_counts(ranks, curve, layer, best, row, (bound, target, asked.by_time))


@native
def descend_rows(curve, ordered, best, asked, token, per_node):
    """Descend from ``token`` int32 [asked, ranks, slots], all of it active, and keep what is faster than the best.

    Replicas stay among ``per_node`` consecutive ranks.
    """
    ranks = new_ranks(token.shape[1], token.shape[2], ordered.tokens.shape[1])
    for at in range(len(asked.rows)):
        row = asked.rows[at]
        layer = row_of(ordered, row)
        scale = scale_of(curve, layer.tokens[0])
        read_ranks(ranks, token[at], curve, scale, layer)
        for _ in range(2):
            if ranks.load.max() / scale < best.time[row]:
                best.limit[row], best.worth[row] = best.time[row], np.inf
                _keep(ranks, curve, scale, layer, best, row)
            descend(ranks, curve, scale, layer.tokens, np.int64(asked.bound[at] * scale), per_node)


@native
def apart_rows(curve, ordered, first, held, extra):
    """Set ``held`` int32 [rows, ranks, slots] to as many replicas as there are slots, -1 where one has no room.

    No replica has more tokens than need be. ``first`` slots of each rank are for one of each expert; ``extra`` int64,
    of the same shape, is set to 1 for all others, else to 0.
    """
    num_ranks, slots = held.shape[1:]
    ranks = new_ranks(num_ranks, slots, ordered.tokens.shape[1])
    for row in range(len(held)):
        layer = row_of(ordered, row)
        _count_most(layer.tokens, num_ranks * slots, ranks.count)
        scale = scale_of(curve, layer.tokens[0])
        deal(ranks, curve, scale, layer, first)
        descend(ranks, curve, scale, layer.tokens, np.int64(0), num_ranks)
        for g in range(num_ranks):
            for s in range(slots):
                e = ranks.expert[g, s]
                held[row, g, s] = layer.expert[e] if e >= 0 else -1
                extra[row, g, s] = ranks.extra[g, s]


@allocating
def _count_most(tokens, num_slots, count):
    """Set ``count`` to ``num_slots`` together, so that no replica has more tokens than need be."""
    count[:] = 1
    for _ in range(num_slots - len(count)):
        most = 0
        for e in range(1, len(count)):
            if tokens[e] * count[most] > tokens[most] * count[e]:
                most = e
        count[most] += 1


@allocating
def _try_counts(ranks, curve, ordered, best, row, asked):
    """Deal and descend with counts from few to many; ``asked`` is bound, target, and whether the fastest is kept."""
    bound, target, by_time = asked
    num_ranks, slots = ranks.expert.shape
    scale = scale_of(curve, ordered.tokens[0])
    before, part = 0, LARGEST[0]
    while part < 1.0 and not count_for(curve, ordered.tokens, num_ranks, num_ranks * slots, bound * part, ranks.count):
        part = min(1.0, part * 1.3)
    # Where slots do not hold so small replicas, the fewest that the bound allows come first: one of each, mostly.
    for largest in (part if part == LARGEST[0] else CLOSE_ENOUGH, part, LARGEST[1]):
        time = bound * largest * (1.0 + 2.5 * CLOSE)
        if not count_for(curve, ordered.tokens, num_ranks, num_ranks * slots, time, ranks.count):
            break
        total = ranks.count.sum()
        if total == before:
            continue
        before = total
        if _work(curve, ordered, ranks.count) >= num_ranks * min(best.limit[row], best.worth[row]):
            break  # and more replicas are more work
        deal(ranks, curve, scale, ordered, slots)
        descend(ranks, curve, scale, ordered.tokens, target, num_ranks)
        if by_time and ranks.load.max() / scale < best.time[row]:
            best.worth[row] = np.inf
        if not by_time or best.worth[row] == np.inf:
            _keep(ranks, curve, scale, ordered, best, row)
        if ranks.load.max() <= max(target, np.int64(bound * WELL * scale)):
            break


@allocating
def _work(curve, ordered, count):
    """Return what all active replicas cost together."""
    work = ordered.rest[0]
    for e in range(len(count)):
        if count[e] > 1:
            work += count[e] * slot_time(curve, ordered.tokens[e] / count[e]) - ordered.single[e]
    return work


@native
def bound_rows(curve, ordered, shape, achieved, bounds):
    """Raise ``bounds`` float64 [rows], lower ones on the busiest rank without what is fixed, as ``achieved`` is.

    They are 0, or what is known already, no less than quick bounds; none comes above ``achieved``. ``shape`` is ranks
    and slots a rank.
    """
    num_ranks, slots = shape
    for at in range(len(achieved)):
        row = row_of(ordered, at)
        known = bounds[at] if bounds[at] > 0.0 else _floor(curve, row, shape)
        bounds[at] = min(known, achieved[at])
        if bounds[at] * CLOSE_ENOUGH < achieved[at]:
            bounds[at] = raise_by_counting(curve, row, num_ranks, num_ranks * slots, bounds[at], achieved[at])


@allocating
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
        at = 0
        for s in range(ranks.expert.shape[1]):
            e = ranks.expert[g, s]
            if e >= 0:
                best.held[row, g, at] = ordered.expert[e]
                at += 1
