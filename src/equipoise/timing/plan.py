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
from equipoise.timing.fill import fill_rows
from equipoise.timing.layer import Asked, Best, bound_rows, descend_rows, floor_rows, plan_rows, start_rows, time_rows
from equipoise.timing.order import Ordered, order_rows
from equipoise.timing.polish import polish_rows
from equipoise.timing.subset import choose_rows, judge_rows

__all__ = ["InTime"]

NEAR, NEAR_ENOUGH, MOST_SLOTS = 1.001, 1.01, 128
"""Bounds: what is no further from one is not looked for among plans of tokens with fewer slots; with more than so many
slots a layer, what is near enough is not either, for there that takes longer than all else.
"""

BASES = 3  # batch sizes, the largest, for which a placement for several is made

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]
Slots = NDArray[np.int32]
Place = Callable[[PlacementProblem], Slots]
"""The slots [layers, slots] that balance the tokens of a problem."""


class InTime:
    """The layers of one problem while they are planned in time, on as many ``threads``.

    What is within ``max_gap`` of a bound is good enough.
    """

    def __init__(self, problem: PlacementProblem, max_gap: float, threads: int | None) -> None:
        assert problem.latency is not None
        self.problem, self.max_gap, self.threads = problem, max_gap, threads
        self.fixed, *rest = problem.latency.constants
        self.curve: Curve = curve_of(*rest)
        self.fewest = -(-problem.num_logical_experts // problem.cluster.num_ranks)
        self.per_node = problem.cluster.ranks_per_node if problem.is_hierarchical else problem.cluster.num_ranks
        self.tokens = [problem.mean_tokens(size) for size in problem.batch_sizes]
        self.ordered = [order_rows(self.curve, tokens) for tokens in self.tokens]
        self.known = [np.zeros(problem.num_layers) for _ in self.tokens]  # lower bounds found while planning

    def plan(self, place: Place) -> tuple[Slots, Bools]:
        """Return the expert in each slot [layers, slots], and which are active [batch sizes, layers, slots].

        ``place`` balances tokens: its plan is what none of ours may be slower than, in any layer at any batch size.
        """
        assert self.problem.latency is not None
        token, sizes = place(self.problem.in_tokens), len(self.tokens)
        if self.problem.latency.is_proportional:
            return token, np.ones((sizes, *token.shape), np.bool_)
        self.place, self.token = place, token.reshape(len(token), self.problem.cluster.num_ranks, -1)
        held, active = self._one() if sizes == 1 else self._several()
        return held.reshape(token.shape), active.reshape(sizes, *token.shape)

    def bound(self, achieved: Floats, at: int) -> Floats:
        """Return a lower bound on the busiest rank's expected time [layers] at one of the batch sizes, by number.

        It holds for any plan, and is never above ``achieved``, what the busiest rank is expected to take in one.
        """
        cluster, bounds, variable = self.problem.cluster, self.known[at].copy(), np.maximum(achieved - self.fixed, 0.0)

        def bound(some: slice) -> None:
            rows = Ordered(*(each[some] for each in self.ordered[at]))
            bound_rows(self.curve, rows, (cluster.num_ranks, cluster.slots_per_rank), variable[some], bounds[some])

        self._each(bound, len(achieved))
        return np.minimum(bounds + self.fixed, achieved)

    def _each(self, work: Callable[[slice], None], number: int) -> None:
        """Call ``work`` on ``number`` rows, in blocks."""
        for_each(work, blocks(number, self.threads), self.threads)

    def _best_active(self, at: int) -> Best:
        """Return the best active replicas of each layer for one batch size, by number; -1 in slots without one.

        With every number of slots a rank, from the fewest on, a plan is made beside what fewer gave, and is never
        slower. Fewer slots are left out in layers where no plan with them is faster than what balances tokens on all.
        What balances tokens on fewer is asked only where a bound leaves room for more than ``NEAR`` says.
        """
        best, ranks, most, ordered = _new_best(*self.token.shape), *self.token.shape[1:], self.ordered[at]
        near = NEAR if ranks * most <= MOST_SLOTS else NEAR_ENOUGH
        every: Rows = np.arange(len(self.token))
        given = self._times(ordered, every, self.token)
        for slots in range(self.fewest, most + 1):
            floors = self._floors(ordered, every, slots)
            rows = every if slots == most else np.flatnonzero(floors < given)
            asked = Asked((ranks, slots), rows, given[rows], floors[rows])
            if not self.problem.is_hierarchical:
                self._plan(ordered, best, asked)
            open_ = self.problem.is_hierarchical | (
                best.time[rows] > (given[rows] if slots == most else asked.bound * near)
            )
            self._descend(ordered, best, Asked(asked.shape, rows[open_], given[rows][open_], asked.bound[open_]))
        self.known[at] = asked.bound  # those of all layers, for all slots, come last
        return best

    def _plan(self, ordered: Ordered, best: Best, asked: Asked) -> None:
        """Plan beside ``best``."""

        def plan(some: slice) -> None:
            part = Asked(asked.shape, asked.rows[some], asked.given[some], asked.bound[some])
            plan_rows(self.curve, ordered, best, part, self.max_gap)

        self._each(plan, len(asked.rows))

    def _descend(self, ordered: Ordered, best: Best, asked: Asked) -> None:
        """Descend from what balances tokens."""
        if len(asked.rows) == 0:
            return
        token = self._token_with(asked.shape[1], asked.rows)

        def descend(some: slice) -> None:
            part = Asked(asked.shape, asked.rows[some], asked.given[some], asked.bound[some])
            descend_rows(self.curve, ordered, best, part, token[some], self.per_node)

        self._each(descend, len(asked.rows))

    def _floors(self, ordered: Ordered, rows: Rows, slots: int) -> Floats:
        floors, shape = np.empty(len(rows)), (self.token.shape[1], slots)
        self._each(lambda some: floor_rows(self.curve, ordered, rows[some], shape, floors[some]), len(rows))
        return floors

    def _times(self, ordered: Ordered, rows: Rows, held: Slots) -> Floats:
        times = np.empty(len(rows))
        self._each(lambda some: time_rows(self.curve, ordered, rows[some], held[some], times[some]), len(rows))
        return times

    def _token_with(self, slots: int, rows: Rows) -> Slots:
        """Return what balances tokens with so many slots a rank, for some layers."""
        if slots == self.token.shape[2]:
            return self.token[rows]
        asked = self.problem.in_tokens.of_layers(rows)
        cluster = replace(self.problem.cluster, slots_per_rank=slots)
        return self.place(replace(asked, cluster=cluster)).reshape(len(rows), -1, slots)

    def _one(self) -> tuple[Slots, Bools]:
        """Return slots and active replicas for one batch size."""
        ordered = self.ordered[0]
        held = self._best_active(0).held
        return held, self._fill(ordered, held)[None]

    def _fill(self, ordered: Ordered, held: Slots) -> Bools:
        """Put dormant replicas into the empty slots of ``held``; return which are active."""
        active = np.empty(held.shape, np.bool_)
        fill_rows(ordered, held, active, self.per_node)
        return active

    def _start(self, ordered: Ordered) -> Slots:
        """Return active replicas where as many slots a rank as are needed are for one of each expert."""
        best = _new_best(*self.token.shape)

        def start(some: slice) -> None:
            part, into = Ordered(*(each[some] for each in ordered)), Best(*(each[some] for each in best))
            start_rows(self.curve, part, into, self.fewest, self.max_gap)

        self._each(start, len(self.token))
        return best.held

    def _several(self) -> tuple[Slots, Bools]:
        """Return slots and active replicas for several batch sizes, those of a smaller among those of a larger.

        Slots for one replica of each expert make the smallest set. Where that, or what follows from the slots that
        balance tokens, is slower at any size than to balance tokens with all replicas active, that is done.
        """
        sizes = self.problem.batch_sizes
        every = np.arange(len(self.token))
        ordered = self.ordered
        plans: list[tuple[Slots, Bools, Floats, Bools]] = []
        starts = [self.token.copy()]
        if not self.problem.is_hierarchical and self.fewest < self.token.shape[2]:
            starts = [*(self._start(each) for each in ordered[::-1][:BASES]), *starts]
        balanced = np.array([self._times(each, every, self.token) for each in ordered])
        for held in starts:
            active = np.empty((len(sizes), *held.shape), np.bool_)
            active[-1] = self._fill(ordered[-1], held)
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
            tokens = self.tokens[at]
            times[at], of_step[at] = self._choose(tokens, held, may, active[at])
        return times, of_step

    def _polish(self, held: Slots, active: Bools, asked: Floats) -> None:
        tokens = np.array(self.tokens)

        def polish(rows: slice) -> None:
            few = [np.ascontiguousarray(part[:, rows]) for part in (tokens, active, asked)]
            polish_rows(self.curve, few[0], held[rows], few[1], few[2])
            active[:, rows] = few[1]

        self._each(polish, len(held))

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

            self._each(work, len(held))
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
