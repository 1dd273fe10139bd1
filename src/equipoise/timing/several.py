"""Plans for several batch sizes: one placement, and from which batch on each slot is active.

A size may take no more than what balances tokens does, with all of it active, and than the plan with one slot a rank
less does. Layers need not have a placement for both: where tokens ask for all replicas at one size, these are active
at all larger ones, where fewer slots may take less. Then tokens come first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.timing.thin import thin_rows

if TYPE_CHECKING:
    from equipoise.timing.plan import InTime

__all__ = ["plan_several"]

STEPS, FEW_STEPS = 300, 100
"""Of search: for what is asked, and for the last part of it."""

NEARLY = 1.0 + 2.0**-11
"""What a batch may take at first, against fewer slots; where it does, few steps are made for the rest."""

RELAXED = (
    (1.0009, 1500, 2), (1.005, 600, 2), (1.015, 600, 2), (1.025, 1200, 2), (1.04, 2400, 2), (1.07, 2400, 2),
    (1.1, 2400, 2),
)  # fmt: skip
"""The same where no start comes to that, so that none is slower than what balances tokens; the most steps; and from how
many starts.
"""

FEW_SLOTS = 128
"""In layers with no more, all starts are searched from, and what is fastest is taken."""

ROUNDED = 1e-9  # relative; a time that is above another by less is not slower

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]


class Nested(NamedTuple):
    """Plans of some layers for all batch sizes.

    held int32 [layers, ranks, slots], the expert in each slot; level int64, same shape, the batch from which on it is
    active, by number; times float64 [layers, batch sizes], of the busiest rank without what is fixed.
    """

    held: Any
    level: Any
    times: Any

    def of(self, rows: Any) -> Nested:
        """Return copies of some layers."""
        return Nested(*(each[rows].copy() for each in self))

    def put(self, rows: Rows, other: Nested) -> None:
        """Put ``other``, plans of some layers, in their place."""
        for mine, theirs in zip(self, other, strict=True):
            mine[rows] = theirs


def plan_several(in_time: InTime) -> tuple[NDArray[np.int32], Bools]:
    """Return the expert in each slot [layers, ranks, slots], and which are active, batch sizes first."""
    nested = _plan(in_time, in_time.problem.cluster.slots_per_rank)
    return nested.held, np.asarray(nested.level <= np.arange(len(in_time.tokens))[:, None, None, None], np.bool_)


def _plan(in_time: InTime, slots: int) -> Nested:
    """Return the plan with so many slots a rank, no slower at any size than what balances tokens, all of it active.

    It is asked to be no slower than with one slot fewer either. Where search comes to both from none of the starts, the
    nearest is given a bit more time for what only fewer slots ask; where that does not help, what balances tokens is
    the start. Then all sizes are made as fast as descent makes them, none of them slower.
    """
    rows: Rows = np.arange(len(in_time.tokens[0]))
    token = in_time.token_with(slots, rows)
    balanced = np.stack([in_time.times(each, rows, token) for each in in_time.ordered], axis=1)
    plan = Nested(token, np.zeros(token.shape, np.int64), balanced).of(rows)
    if slots > in_time.fewest:
        fewer = _plan(in_time, slots - 1)
        strict, asked = np.minimum(balanced, fewer.times), np.minimum(balanced, fewer.times * NEARLY)
        thinned = _thinned(in_time, token)
        apart = thinned if in_time.problem.is_hierarchical else _apart(in_time, slots)
        left, found, others = rows, [], [_widened(in_time, fewer), *thinned]
        for starts in (apart, others):
            found.append(_nearest(in_time, starts, asked))
            left = _try(in_time, plan, found[-1], asked, left, STEPS)
        _try(in_time, plan, plan.of(rows), strict, np.setdiff1d(rows, left), FEW_STEPS)
        for more, steps, number in RELAXED:
            for start in found[:number]:
                left = _try(in_time, plan, start, np.minimum(balanced, fewer.times * more), left, steps)
        if token[0].size <= FEW_SLOTS:
            plan = _search(in_time, plan, plan.times, rows, 0, lower=True)
            for start in (*apart, *others):
                _take(plan, _search(in_time, start.of(rows), strict, rows, STEPS, lower=True), strict)
    return _search(in_time, plan, plan.times, rows, 0, lower=True)


def _take(plan: Nested, other: Nested, strict: Floats) -> None:
    """Put into ``plan`` the layers of another that are within limits and faster, in parts of them, together."""
    parts = [(each.times / np.maximum(strict, 1e-300)).sum(axis=1) for each in (other, plan)]
    better = np.flatnonzero((_above(other.times, strict) == 0.0) & (parts[0] < parts[1]))
    plan.put(better, other.of(better))


def _nearest(in_time: InTime, starts: list[Nested], asked: Floats) -> Nested:
    """Return in each layer the start that is nearest to what is asked, the first of equals."""
    rows: Rows = np.arange(len(asked))
    rated = [_search(in_time, start, asked, rows, 0) for start in starts]
    which = np.argmin([_above(each.times, asked) for each in rated], axis=0)
    return Nested(*(np.stack(each)[which, rows] for each in zip(*rated, strict=True)))


def _try(in_time: InTime, plan: Nested, start: Nested, limits: Floats, rows: Rows, steps: int) -> Rows:
    """Search on from ``start``; put into ``plan`` what comes within ``limits``, and return the other layers."""
    found = _search(in_time, start.of(rows), limits[rows], rows, steps)
    start.put(rows, found)
    within = _above(found.times, limits[rows]) == 0.0
    plan.put(rows[within], found.of(within))
    return np.asarray(rows[~within])


def _above(times: Floats, limits: Floats) -> Floats:
    """Return by how much ``times`` are above ``limits``, both [layers, batch sizes], in parts of them, together."""
    return np.asarray(np.maximum(times / np.maximum(limits, 1e-300) - (1.0 + ROUNDED), 0.0).sum(axis=1))


def _widened(in_time: InTime, fewer: Nested) -> Nested:
    """Return the same with a slot more on each rank, active in no batch."""
    shape = (*fewer.held.shape[:2], 1)
    held = np.concatenate([fewer.held, np.full(shape, -1, np.int32)], axis=2)
    in_time.fill(in_time.ordered[-1], held)
    return Nested(held, np.concatenate([fewer.level, np.full(shape, len(in_time.tokens))], axis=2), fewer.times)


def _thinned(in_time: InTime, token: NDArray[np.int32]) -> list[Nested]:
    """Return what balances tokens with one replica of each expert active in smaller batches, a start for each batch."""
    starts, none = [], len(in_time.tokens)
    for later in range(1, none):
        level = np.empty(token.shape, np.int64)
        thin_rows(in_time.ordered[0], token, level, later)
        starts.append(Nested(token, level, np.empty((len(token), none))))
    return starts


def _apart(in_time: InTime, slots: int) -> list[Nested]:
    """Return a placement in which as few slots of each rank as can be hold one replica of each expert.

    These are active in every batch, all others from some batch on: a start for each.
    """
    none = len(in_time.tokens)
    held, extra = in_time.apart(slots)
    active = in_time.fill(in_time.ordered[-1], held)
    levels = [np.where(active, np.where(extra > 0, later, 0), none) for later in range(1, none)]
    return [Nested(held, level, np.empty((len(held), none))) for level in levels]


def _search(in_time: InTime, start: Nested, limits: Floats, rows: Rows, steps: int, lower: bool = False) -> Nested:
    """Return what so many steps of search come to from a start, which they change, for some layers."""
    times = in_time.nest(start.held, start.level, limits, rows, (in_time.per_node, steps, lower))
    return Nested(start.held, start.level, times)
