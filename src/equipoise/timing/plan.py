"""From a problem with a latency model to slots and active replicas: which kernels run on which layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.latency.curve import Curve, curve_of
from equipoise.problem import PlacementProblem
from equipoise.threads import blocks, for_each
from equipoise.timing.layer import Best, bound_rows, improve_rows, plan_rows, time_rows
from equipoise.timing.polish import polish_rows
from equipoise.timing.subset import choose_rows, fill_rows, judge_rows

__all__ = ["bound_times", "plan_in_time"]

NEAR = 1.001  # a bound: what is no further from it is not looked for among plans of tokens with fewer slots

BASES = 3  # batch sizes, the largest, for which a placement for several is made

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Slots = NDArray[np.int32]
Place = Callable[[PlacementProblem], Slots]
"""The slots [layers, slots] that balance the tokens of a problem."""


def plan_in_time(problem: PlacementProblem, place: Place, max_gap: float, threads: int | None) -> tuple[Slots, Bools]:
    """Return the expert in each slot [layers, slots], and which are active [batch sizes, layers, slots].

    ``place`` balances tokens: its plan is what none of ours may be slower than, in any layer at any batch size.
    """
    assert problem.latency is not None
    token = place(problem.in_tokens)
    ranks = problem.cluster.num_ranks
    sizes = problem.batch_sizes
    if problem.latency.is_proportional:
        return token, np.ones((len(sizes), *token.shape), np.bool_)
    work = _Work(problem, place, token.reshape(len(token), ranks, -1), max_gap, threads)
    held, active = work.one() if len(sizes) == 1 else work.several()
    return held.reshape(token.shape), active.reshape(len(sizes), *token.shape)


def bound_times(problem: PlacementProblem, achieved: Floats, routed_per_step: float) -> Floats:
    """Return a lower bound on the busiest rank's expected time of each layer, never above ``achieved`` [layers]."""
    assert problem.latency is not None
    bounds = np.empty(len(achieved))
    fixed, *rest = problem.latency.constants
    curve, tokens = curve_of(*rest), problem.mean_tokens(routed_per_step)
    cluster = problem.cluster
    variable = np.maximum(achieved - fixed, 0.0)

    def bound(rows: slice) -> None:
        bound_rows(curve, tokens[rows], cluster.num_ranks, cluster.num_slots, variable[rows], bounds[rows])

    for_each(bound, blocks(len(achieved), None))
    return np.minimum(bounds + fixed, achieved)


class _Work:
    """The layers of one problem while they are planned in time."""

    def __init__(
        self, problem: PlacementProblem, place: Place, token: Slots, max_gap: float, threads: int | None
    ) -> None:
        assert problem.latency is not None
        self.problem, self.place, self.token, self.max_gap, self.threads = problem, place, token, max_gap, threads
        self.curve: Curve = curve_of(*problem.latency.constants[1:])
        self.fewest = -(-problem.num_logical_experts // problem.cluster.num_ranks)
        self.per_node = problem.cluster.num_ranks
        if problem.is_hierarchical:
            self.per_node = problem.cluster.ranks_per_node

    def _each(self, work: Callable[[slice], None]) -> None:
        for_each(work, blocks(len(self.token), self.threads), self.threads)

    def _time(self, tokens: Floats, held: Slots) -> Floats:
        times = np.empty(len(held))
        self._each(lambda rows: time_rows(self.curve, tokens[rows], held[rows], times[rows]))
        return times

    def _improve(self, tokens: Floats, held: Slots, rows: NDArray[np.int64], best: Best) -> None:
        """Descend from ``held`` [rows given], and keep what is faster than the best of those rows."""
        few = _new_best(len(rows), held.shape[1], best.held.shape[2])
        improve_rows(self.curve, tokens[rows], few, np.ascontiguousarray(held), self.per_node)
        better = few.time < best.time[rows]
        for mine, theirs in zip(best, few, strict=True):
            mine[rows[better]] = theirs[better]

    def active_only(self, tokens: Floats, first: int) -> Best:
        """Return the best active replicas of each layer for means of ``tokens``, -1 in slots without one."""
        best = _new_best(len(tokens), *self.token.shape[1:])
        given = self._time(tokens, self.token)
        every = np.arange(len(tokens))
        if self.problem.is_hierarchical:
            for slots in range(self.fewest, self.token.shape[2] + 1):
                self._improve(tokens, self._token_with(slots, every), every, best)
            return best
        fewest = self.fewest if first == 0 else self.token.shape[2]
        floors = np.empty((len(tokens), self.token.shape[2] + 1 - fewest))

        def plan(rows: slice) -> None:
            into = Best(*(part[rows] for part in best))
            plan_rows(self.curve, tokens[rows], into, given[rows], floors[rows], first, self.max_gap)

        self._each(plan)
        if first == 0:
            self._hold_to_tokens(tokens, given, floors, best)
        return best

    def _hold_to_tokens(self, tokens: Floats, given: Floats, floors: Floats, best: Best) -> None:
        """Take what descends from plans of tokens where these are faster, with all slots a rank or with fewer.

        With fewer they are asked only where a bound leaves room for more than a tenth of a percent.
        """
        slower = np.flatnonzero(given < best.time)
        if len(slower):
            self._improve(tokens, self.token[slower], slower, best)
        for at, slots in enumerate(range(self.fewest, self.token.shape[2])):
            open_ = np.flatnonzero(floors[:, at] * NEAR < best.time)
            if len(open_):
                self._improve(tokens, self._token_with(slots, open_), open_, best)

    def _token_with(self, slots: int, rows: NDArray[np.int64]) -> Slots:
        """Return what balances tokens with so many slots a rank, for some layers."""
        if slots == self.token.shape[2]:
            return self.token[rows]
        asked = self.problem.in_tokens.of_layers(rows)
        cluster = replace(self.problem.cluster, slots_per_rank=slots)
        return self.place(replace(asked, cluster=cluster)).reshape(len(rows), -1, slots)

    def one(self) -> tuple[Slots, Bools]:
        """Return slots and active replicas for one batch size."""
        tokens = self.problem.mean_tokens(self.problem.batch_sizes[0])
        held = self.active_only(tokens, 0).held
        active = np.empty(held.shape, np.bool_)
        fill_rows(tokens, held, active)
        return held, active[None]

    def several(self) -> tuple[Slots, Bools]:
        """Return slots and active replicas for several batch sizes, those of a smaller among those of a larger.

        Slots for one replica of each expert make the smallest set. Where that, or what follows from the slots that
        balance tokens, is slower at any size than to balance tokens with all replicas active, that is done.
        """
        sizes = self.problem.batch_sizes
        most = self.problem.mean_tokens(sizes[-1])
        plans: list[tuple[Slots, Bools, Floats, Bools]] = []
        starts = [self.token.copy()]
        if not self.problem.is_hierarchical and self.fewest < self.token.shape[2]:
            bases = [self.problem.mean_tokens(size) for size in sizes[::-1][:BASES]]
            starts = [*(self.active_only(base, self.fewest).held for base in bases), *starts]
        balanced = np.array([self._time(self.problem.mean_tokens(size), self.token) for size in sizes])
        for held in starts:
            active = np.empty((len(sizes), *held.shape), np.bool_)
            fill_rows(most, held, active[-1])
            self._subsets(held, active)
            if not self.problem.is_hierarchical:
                self._polish(held, active, balanced)
            times, of_step = self._subsets(held, active)
            worth = ((times + of_step) / np.maximum(balanced, 1e-300)).sum(axis=0)
            plans.append((held, active, worth, np.asarray((times > balanced).any(axis=0), np.bool_)))
        awake = np.ones((len(sizes), *self.token.shape), np.bool_)
        never = np.zeros(len(self.token), np.bool_)
        plans.append((self.token.copy(), awake, np.full(len(self.token), np.inf), never))
        held, active, worth, slower = plans[0]
        for other, awake, other_worth, other_slower in plans[1:]:
            better = (slower & ~other_slower) | ((slower == other_slower) & (other_worth < worth))
            held[better], active[:, better] = other[better], awake[:, better]
            worth[better], slower[better] = other_worth[better], other_slower[better]
        return held, active

    def _subsets(self, held: Slots, active: Bools) -> tuple[Floats, Floats]:
        """Set ``active``, of which the largest batch has all that may be, from the largest to the smallest.

        Returns the time of each batch and layer, and that of one step.
        """
        times, of_step = np.empty((2, len(active), len(held)))
        for at in range(len(active) - 1, -1, -1):
            may = active[min(at + 1, len(active) - 1)].copy()
            tokens = self.problem.mean_tokens(self.problem.batch_sizes[at])
            times[at], of_step[at] = self._choose(tokens, held, may, active[at])
        return times, of_step

    def _polish(self, held: Slots, active: Bools, asked: Floats) -> None:
        tokens = np.array([self.problem.mean_tokens(size) for size in self.problem.batch_sizes])

        def polish(rows: slice) -> None:
            few = [np.ascontiguousarray(part[:, rows]) for part in (tokens, active, asked)]
            polish_rows(self.curve, few[0], held[rows], few[1], few[2])
            active[:, rows] = few[1]

        self._each(polish)

    def _choose(self, tokens: Floats, held: Slots, may: Bools, active: Bools) -> tuple[Floats, Floats]:
        """Set ``active`` to the better of what two starts lead to; return its time and that of one step."""
        starts = [may, _one_each(held, may, self.fewest)] if self.fewest < held.shape[2] else [may]
        times = np.full(len(held), np.inf)
        of_step = np.full(len(held), np.inf)
        for begin in starts:
            found, time, step = np.empty_like(may), np.empty(len(held)), np.empty(len(held))

            def work(
                rows: slice, begin: Bools = begin, found: Bools = found, time: Any = time, step: Any = step
            ) -> None:
                choose_rows(self.curve, tokens[rows], held[rows], may[rows], begin[rows], found[rows])
                judge_rows(self.curve, tokens[rows], held[rows], found[rows], time[rows], step[rows])

            self._each(work)
            better = time + step < times + of_step
            active[better], times[better], of_step[better] = found[better], time[better], step[better]
        return times, of_step


def _new_best(rows: int, ranks: int, slots: int) -> Best:
    return Best(np.full((rows, ranks, slots), -1, np.int32), *(np.full(rows, np.inf) for _ in range(3)))


def _one_each(held: Slots, may: Bools, first: int) -> Bools:
    """Return the replicas in the ``first`` slots of each rank, and of experts that have none there all that may be."""
    begin = may.copy()
    begin[:, :, first:] = False
    for row in range(len(held)):
        missing = np.setdiff1d(held[row][may[row]], held[row][begin[row]])
        if len(missing):
            begin[row] |= may[row] & np.isin(held[row], missing)
    return np.asarray(begin, np.bool_)
