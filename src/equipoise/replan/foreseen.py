"""From a placement in force, for what may come: steps on the expected square of rank loads, or a plan made anew.

The robust counterpart of ``curves.py``, for problems whose load is a forecast with errors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.how import How
from equipoise.problem import PlacementProblem
from equipoise.replan.anew import Anew, plan_anew
from equipoise.replan.budget import Budget
from equipoise.replan.curves import Within, anew_matters_from, check_nothing_is_dropped, clamped, share_out
from equipoise.replan.fill import filled
from equipoise.replan.in_force import InForce
from equipoise.replan.remainder import remainder
from equipoise.robust.fresh import with_errors
from equipoise.robust.numba import objectives
from equipoise.robust.rows import rows_of, unit_of
from equipoise.robust.steps import MAX, descend
from equipoise.threads import part

__all__ = ["Ahead", "foresee", "is_foreseen"]

Ints = NDArray[np.int32]
Int64s = NDArray[np.int64]

BETTER = 10  # a plan made anew must lower the excess by one part in so many, for it moves most of a layer
FINE = 2.0**40  # parts of the largest layer that excesses are weighed in


def is_foreseen(problem: PlacementProblem) -> bool:
    """Whether there are errors to plan against; where only some layers have them, the others count as certain."""
    return bool(with_errors(problem).any())


class Ahead:
    """How far steps come from what is left of a placement, and what a plan made anew reaches instead."""

    def __init__(self, start: InForce, budget: Budget, how: How) -> None:
        forecast, ranks = start.problem.forecast, len(start.alive)
        assert forecast is not None
        self.start, self.how, self.left = start, how, remainder(start)
        if budget.complete:
            self.left = filled(self.left, start.node)
        self.rows = rows_of(forecast, ranks)
        self.level = np.where(forecast.share.any(axis=1), ranks * unit_of(ranks) ** 2, 0)
        self.anew_from = anew_matters_from(start.problem)
        self.anew: Anew | None = None
        self.reached = np.empty(0, dtype=np.int64)  # the objective of each layer made anew

    def descend(self, limit: int | Int64s, held: Ints | None = None) -> tuple[Ints, Int64s, Int64s, NDArray[np.bool_]]:
        """Make steps with up to ``limit`` transfers a layer, or what it needs if that is more, on from ``held``."""
        left = self.left
        limits = np.broadcast_to(np.maximum(left.transfers, limit), left.transfers.shape)
        slots = left.held if held is None else held
        return descend(self.rows, slots, left.was, self.start.node, left.home, self.level, limits, self.how.threads)

    def look_anew(self, curve: Int64s) -> None:
        """Plan all layers anew that steps leave above the level; whether that pays is asked of ``curve``.

        It pays where the excess is a tenth less than that of the steps with as many transfers. That depends on no
        limit: so what a limit admits, a larger one admits too.
        """
        layers = np.flatnonzero(curve[:, self.anew_from] - self.level > self.level >> 20)
        found = plan_anew(self.start, layers, self.how)
        if found is None:
            return
        reached = objectives(self.rows[layers], found.held)
        first = np.minimum(np.maximum(found.transfers, self.anew_from), curve.shape[1] - 1)
        excess = curve[layers, first] - self.level[layers]
        pays = reached - self.level[layers] <= excess - excess // BETTER
        self.anew = Anew(layers[pays], found.held[pays], found.transfers[pays], found.implementation, found.strategy)
        self.reached = reached[pays]

    def joined(self, curve: Int64s) -> Int64s:
        """Return ``curve`` with the plans made anew as points of it."""
        curve = curve.copy()
        if self.anew is not None:
            for row, layer in enumerate(self.anew.layers):
                first = max(self.anew_from, int(self.anew.transfers[row]))
                curve[layer, first:] = np.minimum(curve[layer, first:], self.reached[row])
        return curve

    def best(self, limit: Int64s, held: Ints, curve: Int64s, spent: Int64s) -> tuple[Ints, Int64s]:
        """Return the slots that so many transfers a layer lead to, and what was spent.

        ``held``, ``curve`` and ``spent`` are what steps led to within ``limit``; the first and last are changed.
        """
        if self.anew is not None:
            for row, layer in enumerate(self.anew.layers):
                fits = limit[layer] >= max(self.anew_from, int(self.anew.transfers[row]))
                if fits and self.reached[row] < curve[layer, -1]:
                    held[layer], spent[layer] = self.anew.held[row], self.anew.transfers[row]
        return held, spent


@part
def foresee(start: InForce, budget: Budget, how: How) -> Within:
    """Return the best that was found within the limits on transfers, if there are any."""
    problem, ahead = start.problem, Ahead(start, budget, how)
    if not budget.complete:
        check_nothing_is_dropped(start, ahead.left, budget)
    most, total = clamped(problem, ahead.left, budget)
    may_look = most >= ahead.anew_from and (total is None or total >= ahead.anew_from * problem.num_layers)
    held, curve, spent, _ = ahead.descend(most)
    if may_look:
        ahead.look_anew(curve)
    limit = np.full(problem.num_layers, most)
    if total is not None:
        limit = share_out(_weighed(problem, ahead, ahead.joined(curve)), ahead.left.transfers, total)
        held, curve, spent, _ = ahead.descend(limit)
    held, spent = ahead.best(limit, held, curve, spent)
    return Within(held, spent, ahead.anew)


def _weighed(problem: PlacementProblem, ahead: Ahead, curve: Int64s) -> Int64s:
    """Return what layers are weighed against each other by: the root of the excess, in tokens of the largest layer.

    It is the standard deviation of rank loads, to which what the busiest rank has too much is proportional.
    """
    tokens = problem.load.sum(axis=1)
    scale = FINE * tokens / max(tokens.max(), np.finfo(np.float64).tiny)
    level = ahead.level[:, None]
    excess = np.maximum(np.where(curve == MAX, level, curve) - level, 0) / np.maximum(level, 1)
    weighed: Int64s = np.rint(scale[:, None] * np.sqrt(excess)).astype(np.int64)
    return weighed
