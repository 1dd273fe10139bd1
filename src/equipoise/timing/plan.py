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
from equipoise.timing.nested import nest_rows
from equipoise.timing.order import Ordered, order_rows

__all__ = ["InTime"]

NEAR, NEAR_ENOUGH, MOST_SLOTS = 1.001, 1.01, 128
"""Bounds: what is no further from one is not looked for among plans of tokens with fewer slots; with more than so many
slots a layer, what is near enough is not either, for there that takes longer than all else.
"""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]
Levels = NDArray[np.int64]
Slots = NDArray[np.int32]
ALL = slice(None)
KICKS, RELAXED, ROUNDED = 200, (1.0, 1.005, 1.015, 1.04), 1e-10
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

    def _start(self, ordered: Ordered, slots: int) -> Slots:
        """Return active replicas where as many slots a rank as are needed are for one of each expert."""
        best = _new_best(*self.token.shape[:2], slots)

        def start(some: slice) -> None:
            part, into = Ordered(*(each[some] for each in ordered)), Best(*(each[some] for each in best))
            start_rows(self.curve, part, into, self.fewest, self.max_gap)

        self._each(start, len(self.token))
        return best.held

    def _several(self) -> tuple[Slots, Bools]:
        """Return slots and active replicas for several batch sizes, those of a smaller among those of a larger."""
        held, level, _ = self._nested(self.token.shape[2])
        return held, np.asarray(level <= np.arange(len(self.tokens))[:, None, None, None], np.bool_)

    def _nested(self, slots: int) -> tuple[Slots, Levels, Floats]:
        """Return slots [layers, ranks, slots], the batch from which on each is active, and times [layers, batch sizes].

        None is slower than what balances tokens, all of it active; nor, where descent comes to that, than what fewer
        slots a rank gave. Of what several starts lead to, what is best against both is taken.
        """
        every: Rows = np.arange(len(self.token))
        token, none = self._token_with(slots, every), len(self.tokens)
        balanced = np.stack([self._times(each, every, token) for each in self.ordered], axis=1)
        best, levels, times = token, np.zeros(token.shape, np.int64), balanced.copy()
        asked, starts = balanced, [(best.copy(), levels.copy())]
        if slots > self.fewest:
            fewer, level, before = self._nested(slots - 1)
            asked = np.minimum(balanced, before)
            starts.append(self._widened(fewer, level))
            if not self.problem.is_hierarchical:
                starts += [self._apart(slots, at) for at in range(none)]
        near, near_levels, nearest = starts[0][0].copy(), starts[0][1].copy(), balanced.copy()
        for held, level in starts:
            reached = self._nest(held, level, asked, 0)
            for limits, into in (((asked,), (near, near_levels, nearest)), ((balanced, asked), (best, levels, times))):
                better = _is_better(reached, into[2], limits)
                _take(np.flatnonzero(better), into, (held[better], level[better], reached[better]))
        for more in RELAXED:  # what fewer slots took may take somewhat more, where that makes it no slower than balanced
            rows = np.flatnonzero((times > asked * (1.0 + ROUNDED)).any(axis=1))
            if len(rows) == 0:
                break
            held, level = near[rows], near_levels[rows]
            reached = self._nest(held, level, np.minimum(asked * more, balanced)[rows], KICKS, rows)
            better = _is_better(reached, times[rows], (balanced[rows], asked[rows]))
            _take(rows[better], (best, levels, times), (held[better], level[better], reached[better]))
        return best, levels, times

    def _widened(self, held: Slots, level: Levels) -> tuple[Slots, Levels]:
        """Return the same with a slot more on each rank, active in no batch."""
        wider = np.concatenate([held, np.full((*held.shape[:2], 1), -1, np.int32)], axis=2)
        self._fill(self.ordered[-1], wider)
        return wider, np.concatenate([level, np.full((*level.shape[:2], 1), len(self.tokens))], axis=2)

    def _apart(self, slots: int, at: int) -> tuple[Slots, Levels]:
        """Return a plan for one batch size in which the fewest slots hold one replica of each expert.

        These are active in every batch, the others from that one on.
        """
        held = self._start(self.ordered[at], slots)
        level = np.where(np.arange(slots) < self.fewest, 0, np.where(self._fill(self.ordered[at], held), at, len(self.tokens)))
        return held, level

    def _nest(self, held: Slots, level: Levels, goals: Floats, kicks: int, rows: Rows | slice = ALL) -> Floats:
        """Descend from slots and levels of some layers, in place, to ``goals`` [layers, batch sizes]; return the times."""
        times, tokens = np.where(goals > 0, goals, 1.0), np.stack([each[rows] for each in self.tokens], axis=1)

        def nest(some: slice) -> None:
            nest_rows(self.curve, tokens[some], times[some], held[some], level[some], self.per_node, kicks)

        self._each(nest, len(held))
        return times


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


def _take(rows: Rows, into: tuple[NDArray[Any], ...], given: tuple[NDArray[Any], ...]) -> None:
    for mine, theirs in zip(into, given, strict=True):
        mine[rows] = theirs


def _new_best(rows: int, ranks: int, slots: int) -> Best:
    return Best(np.full((rows, ranks, slots), -1, np.int32), *(np.full(rows, np.inf) for _ in range(3)))
