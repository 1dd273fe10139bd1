"""From a problem with a latency model to slots and active replicas: which kernels run on which layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from equipoise.latency.curve import Curve, curve_of
from equipoise.problem import PlacementProblem
from equipoise.threads import blocks, for_each
from equipoise.timing.fill import fill_rows
from equipoise.timing.layer import Asked, Best, apart_rows, bound_rows, descend_rows, floor_rows, plan_rows, time_rows
from equipoise.timing.nested import nest_rows
from equipoise.timing.order import Ordered, order_rows
from equipoise.timing.several import plan_several

__all__ = ["InTime"]

NEAR, NEAR_ENOUGH, MOST_SLOTS = 1.001, 1.02, 128
"""Bounds: what is no further from one is not looked for among plans of tokens with fewer slots; with more than so many
slots a layer, what is near enough is not either, for there that takes longer than all else.
"""

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
        # Lower bounds found while planning, and which of them cannot be raised any more.
        self.known = [np.zeros(problem.num_layers) for _ in self.tokens]
        self.raised = [np.zeros(problem.num_layers, np.bool_) for _ in self.tokens]

    def plan(self, place: Place) -> tuple[Slots, Bools]:
        """Return the expert in each slot [layers, slots], and which are active [batch sizes, layers, slots].

        ``place`` balances tokens: its plan is what none of ours may be slower than, in any layer at any batch size.
        """
        assert self.problem.latency is not None
        token, sizes = place(self.problem.in_tokens), len(self.tokens)
        if self.problem.latency.is_proportional:
            return token, np.ones((sizes, *token.shape), np.bool_)
        self.place, self.token = place, token.reshape(len(token), self.problem.cluster.num_ranks, -1)
        held, active = self._one() if sizes == 1 else plan_several(self)
        return held.reshape(token.shape), active.reshape(sizes, *token.shape)

    def bound(self, achieved: Floats, at: int) -> Floats:
        """Return a lower bound on the busiest rank's expected time [layers] at one of the batch sizes, by number.

        It holds for any plan, and is never above ``achieved``, what the busiest rank is expected to take in one.
        """
        cluster, left = self.problem.cluster, np.flatnonzero(~self.raised[at])
        variable, bounds = np.maximum(achieved - self.fixed, 0.0)[left], self.known[at][left]
        ordered = Ordered(*(each[left] for each in self.ordered[at]))

        def bound(some: slice) -> None:
            rows = Ordered(*(each[some] for each in ordered))
            bound_rows(self.curve, rows, (cluster.num_ranks, cluster.slots_per_rank), variable[some], bounds[some])

        self.each(bound, len(left))
        every = self.known[at].copy()
        every[left] = bounds
        return np.asarray(np.minimum(every + self.fixed, achieved))

    def each(self, work: Callable[[slice], None], number: int) -> None:
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
        given, tries = self.times(ordered, every, self.token), []
        for slots in range(self.fewest, most + 1):
            floors = self._floors(ordered, every, slots)
            rows = every if slots == most else np.flatnonzero(floors < given)
            asked = Asked((ranks, slots), rows, given[rows], floors[rows], slots < most)
            if not self.problem.is_hierarchical:
                self.raised[at] = best.time < np.inf
                self._plan(ordered, best, asked)
            tries.append(asked)
        for asked in tries:  # what balances tokens takes longest: it is asked last, when little is left to gain
            enough = asked.bound * near if asked.by_time else asked.given
            open_ = self.problem.is_hierarchical | (best.time[asked.rows] > enough)
            left = Asked(asked.shape, asked.rows[open_], asked.given[open_], asked.bound[open_], asked.by_time)
            self._descend(ordered, best, left)
        self.known[at] = asked.bound  # those of all layers, for all slots, come last
        return best

    def _plan(self, ordered: Ordered, best: Best, asked: Asked) -> None:
        """Plan beside ``best``."""

        def plan(some: slice) -> None:
            part = Asked(asked.shape, asked.rows[some], asked.given[some], asked.bound[some], asked.by_time)
            plan_rows(self.curve, ordered, best, part, self.max_gap)

        self.each(plan, len(asked.rows))

    def _descend(self, ordered: Ordered, best: Best, asked: Asked) -> None:
        """Descend from what balances tokens."""
        if len(asked.rows) == 0:
            return
        token = self.token_with(asked.shape[1], asked.rows)

        def descend(some: slice) -> None:
            part = Asked(asked.shape, asked.rows[some], asked.given[some], asked.bound[some], asked.by_time)
            descend_rows(self.curve, ordered, best, part, token[some], self.per_node)

        self.each(descend, len(asked.rows))

    def _floors(self, ordered: Ordered, rows: Rows, slots: int) -> Floats:
        """Return quick bounds for some layers with so many slots a rank."""
        floors, shape = np.empty(len(rows)), (self.token.shape[1], slots)
        floor_rows(self.curve, ordered, rows, shape, floors)  # so quick that it is not split over threads
        return floors

    def times(self, ordered: Ordered, rows: Rows, held: Slots) -> Floats:
        """Return what the busiest rank of some layers takes where all of ``held`` is active."""
        times = np.empty(len(rows))
        time_rows(self.curve, ordered, rows, held, times)
        return times

    def token_with(self, slots: int, rows: Rows) -> Slots:
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
        return held, self.fill(ordered, held)[None]

    def fill(self, ordered: Ordered, held: Slots) -> Bools:
        """Put dormant replicas into the empty slots of ``held``; return which are active."""
        active = np.empty(held.shape, np.bool_)
        fill_rows(ordered, held, active, self.per_node)
        return active

    def nest(self, held: Slots, level: Rows, limits: Floats, rows: Rows, search: tuple[int, int, bool]) -> Floats:
        """Search from ``held`` and ``level``, and change them, for some layers; see ``nest_rows``, also for ``search``.

        ``limits`` are of batches, [layers, batches]. Returns what the busiest ranks take, as many.
        """
        times, (per_node, steps, lower) = np.where(limits > 0, limits, 1.0), search
        tokens = np.stack([each[rows] for each in self.tokens], axis=1)

        def nest(some: slice) -> None:
            asked = per_node, steps, np.bool_(lower)
            nest_rows(self.curve, tokens[some], times[some], held[some], level[some], asked)

        self.each(nest, len(times))
        return times

    def apart(self, slots: int) -> tuple[Slots, Rows]:
        """Return a placement that is balanced in the largest batch, -1 in slots without a replica.

        And which are extra: all others, as few of each rank as can be, hold one replica of each expert.
        """
        held = np.empty((*self.token.shape[:2], slots), np.int32)
        extra = np.empty(held.shape, np.int64)

        def place(some: slice) -> None:
            part = Ordered(*(each[some] for each in self.ordered[-1]))
            apart_rows(self.curve, part, self.fewest, held[some], extra[some])

        self.each(place, len(held))
        return held, extra


def _new_best(rows: int, ranks: int, slots: int) -> Best:
    return Best(np.full((rows, ranks, slots), -1, np.int32), *(np.full(rows, np.inf) for _ in range(3)))
