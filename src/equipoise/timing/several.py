"""Plans for several batch sizes: one placement, and from which batch on each slot is active."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.timing.nested import nest_rows
from equipoise.timing.thin import thin_rows

if TYPE_CHECKING:
    from equipoise.timing.plan import InTime

__all__ = ["plan_several"]

STARTS, STEPS = 2, 300
"""So many starts are searched from, those nearest to what is asked first, and so long."""

NEARLY = 1.0 + 2.0**-11

RELAXED = (1.005, 1.015, 1.04, 1.1)
"""What a batch may take against fewer slots, so that none is slower than what balances tokens: one after the other."""

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
    """Return the plan with so many slots a rank, which is asked to be no slower at any size than that with one fewer.

    Nor than what balances tokens, all of it active. Where search comes to both from none of the starts, the nearest is
    given a bit more time for what only fewer slots ask; where that does not help, what balances tokens is the start.
    """
    every: Rows = np.arange(len(in_time.tokens[0]))
    token = in_time.token_with(slots, every)
    balanced = np.stack([in_time.times(each, every, token) for each in in_time.ordered], axis=1)
    plan, asked, rows = Nested(token.copy(), np.zeros(token.shape, np.int64), balanced.copy()), balanced, every
    if slots > in_time.fewest:
        fewer = _plan(in_time, slots - 1)
        asked = np.minimum(balanced, fewer.times * NEARLY)
        starts = [_widened(in_time, fewer), *_thinned(in_time, token), *_apart(in_time, token)]
        rated = [_search(in_time, start, asked, every, 0) for start in starts]
        order = np.argsort([_above(each.times, asked) for each in rated], axis=0, kind="stable")
        nearest = plan.of(every)
        for which in order[:STARTS]:
            start = nearest.of(rows)
            for at, each in enumerate(rated):
                chosen = np.flatnonzero(which[rows] == at)
                start.put(chosen, each.of(rows[chosen]))
            found = _search(in_time, start, asked[rows], rows, STEPS)
            nearer = _above(found.times, asked[rows]) < _above(nearest.times[rows], asked[rows])
            nearest.put(rows[nearer], found.of(nearer))
            rows = rows[_above(nearest.times[rows], asked[rows]) > 0.0]
        met = _above(nearest.times, asked) == 0.0
        plan.put(np.flatnonzero(met), nearest.of(met))
        for more in RELAXED:
            limits = np.minimum(fewer.times[rows] * more, balanced[rows])
            found = _search(in_time, nearest.of(rows), limits, rows, STEPS)
            within = _above(found.times, limits) == 0.0
            plan.put(rows[within], found.of(within))
            rows = rows[~within]
    _search(in_time, plan, plan.times, every, 0, lower=True)
    return plan


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


def _apart(in_time: InTime, token: NDArray[np.int32]) -> list[Nested]:
    """Return the same replicas placed anew: as few slots of each rank as can be hold one of each expert, a start a batch.

    These are active in every batch, the others from that batch on.
    """
    if in_time.problem.is_hierarchical:
        return []
    held, apart, none = token.copy(), np.empty(token.shape, np.int64), len(in_time.tokens)
    in_time.apart(held, apart)
    active = in_time.fill(in_time.ordered[-1], held)
    levels = [np.where(active, np.where(apart > 0, later, 0), none) for later in range(1, none)]
    return [Nested(held, level, np.empty((len(held), none))) for level in levels]


def _search(in_time: InTime, start: Nested, limits: Floats, rows: Rows, steps: int, lower: bool = False) -> Nested:
    """Return what so many steps of search come to from a start, which they change, for some layers."""
    times = np.where(limits > 0, limits, 1.0)
    tokens = np.stack([each[rows] for each in in_time.tokens], axis=1)

    def nest(some: slice) -> None:
        held, level = start.held[some], start.level[some]
        nest_rows(in_time.curve, tokens[some], times[some], held, level, (in_time.per_node, steps, np.bool_(lower)))

    in_time.each(nest, len(times))
    return Nested(start.held, start.level, times)
