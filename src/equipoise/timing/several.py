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

KICKS = 200
RELAXED = (1.0, 1.005, 1.015, 1.04, 1.1, 1.25)
"""What a batch may take against fewer slots, so that none is slower than what balances tokens: one after the other."""
ROUNDED = 1e-10  # relative; a time that is above another by less is not slower

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
        return Nested(*(each[rows] for each in self))

    def take(self, rows: Any, better: Bools, other: Nested) -> None:
        """Put in their place the layers of ``other``, which are ``rows`` of these, that are better."""
        for mine, theirs in zip(self, other, strict=True):
            mine[rows[better]] = theirs[better]


def plan_several(in_time: InTime) -> tuple[NDArray[np.int32], Bools]:
    """Return the expert in each slot [layers, ranks, slots], and which are active, batch sizes first."""
    nested = _plan(in_time, in_time.problem.cluster.slots_per_rank)
    return nested.held, np.asarray(nested.level <= np.arange(len(in_time.tokens))[:, None, None, None], np.bool_)


def _plan(in_time: InTime, slots: int) -> Nested:
    """Return the plan with so many slots a rank, which starts from that with one fewer.

    No batch is slower than what balances tokens, all of it active; nor, where descent comes to that, than with fewer
    slots. Of what several starts lead to, the best is taken. Where none comes to that, the nearest is taken up again,
    with kicks, and with a bit more time for what only fewer slots ask.
    """
    every: Rows = np.arange(len(in_time.tokens[0]))
    token = in_time.token_with(slots, every)
    balanced = np.stack([in_time.times(each, every, token) for each in in_time.ordered], axis=1)
    best = Nested(token.copy(), np.zeros(token.shape, np.int64), balanced.copy())
    nearest, starts, asked = best.of(every), [best], balanced
    if slots > in_time.fewest:
        fewer = _plan(in_time, slots - 1)
        asked = np.minimum(balanced, fewer.times)
        starts = [best, _widened(in_time, fewer), *_thinned(in_time, token), *_apart(in_time, token)]
    for start in starts:
        found = _descend(in_time, start.of(every), asked)
        nearest.take(every, _is_better(found.times, nearest.times, (asked,)), found)
        best.take(every, _is_better(found.times, best.times, (balanced, asked)), found)
    for more in RELAXED:
        rows = np.flatnonzero((best.times > asked * (1.0 + ROUNDED)).any(axis=1))
        if len(rows) == 0:
            break
        found = _descend(in_time, nearest.of(rows), np.minimum(asked * more, balanced)[rows], rows, KICKS)
        best.take(rows, _is_better(found.times, best.times[rows], (balanced[rows], asked[rows])), found)
    return best


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
    """Return a start for each batch size, in which as few slots as can be hold one replica of each expert.

    These are active in every batch, the others from that batch on.
    """
    if in_time.problem.is_hierarchical:
        return []
    starts, none = [], len(in_time.tokens)
    for at, ordered in enumerate(in_time.ordered):
        held, found = in_time.start(ordered, token.shape[2])
        held[~found] = token[~found]
        level = np.where(in_time.fill(ordered, held), at, none)
        level[:, :, : in_time.fewest] = 0
        level[~found] = 0
        starts.append(Nested(held, level, np.empty((len(held), none))))
    return starts


def _descend(in_time: InTime, start: Nested, goals: Floats, rows: Rows | slice = slice(None), kicks: int = 0) -> Nested:
    """Return what descent comes to from a start, which it changes, for some layers."""
    times = np.where(goals > 0, goals, 1.0)
    tokens = np.stack([each[rows] for each in in_time.tokens], axis=1)

    def nest(some: slice) -> None:
        held, level = start.held[some], start.level[some]
        nest_rows(in_time.curve, tokens[some], times[some], held, level, in_time.per_node, kicks)

    in_time.each(nest, len(times))
    return Nested(start.held, start.level, times)


def _is_better(times: Floats, than: Floats, limits: tuple[Floats, ...]) -> Bools:
    """Return in which layers ``times`` are better, all [layers, batch sizes]: within each limit, then against the last.

    How far the worst batch is over a limit counts first, then the sum of all.
    """
    better, equal = np.zeros(len(times), np.bool_), np.ones(len(times), np.bool_)
    for at, limit in enumerate((*limits, limits[-1])):
        mine, theirs = (each / np.maximum(limit, 1e-300) for each in (times, than))
        if at < len(limits):
            mine, theirs = (np.maximum(each.max(axis=1), 1.0 + ROUNDED) for each in (mine, theirs))
        else:
            mine, theirs = mine.sum(axis=1), theirs.sum(axis=1)
        better |= equal & (mine < theirs)
        equal &= mine == theirs
    return better
