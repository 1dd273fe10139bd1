"""Level enough with few transfers, quickly: what a serving engine asks for where nobody set a limit.

A layer is level if its busiest rank carries at most the tolerance more than the mean, and then it is left alone. Else
its ranks change places, pair by pair, until it is level (``pairs/``): first roughly, to three times the tolerance, and
then wholly where not many slots have changed by then, or the busiest rank was far too busy. Few layers do not get
there: where one expert is too hot for its replicas, ranks have too few slots, or whole groups on nodes leave one node
with too much. Those are planned anew, and take that plan where it leaves the busiest rank lighter by three times the
tolerance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds import BOUNDS, lower_bounds
from equipoise.how import How
from equipoise.replan.budget import Budget
from equipoise.replan.curves import FEW, ROUGHLY, Curves, Within, pays, raised
from equipoise.replan.in_force import InForce
from equipoise.replan.levelling.numba import MAX
from equipoise.replan.pairs.numba import exchange
from equipoise.replan.remainder import count_kept
from equipoise.threads import part

__all__ = ["settle"]

FAR = 1.5  # times the mean: what drift does not make of a plan


@part
def settle(start: InForce, budget: Budget, how: How) -> Within:
    """Return the placement in force, levelled to the tolerance of ``budget``, and what of it was made anew.

    With a tolerance t, what a layer's busiest rank carries is at most 1 + t times the mean, 1 + 3 t times where more
    than one slot in ``FEW`` has changed by then, or 1 / (1 - 3 t) times what it carries in a plan made anew. Where it
    carried ``FAR`` times the mean, the layer was not made for such a load, and is levelled to the tolerance.
    """
    curves, tolerance = Curves(start, how, budget), budget.tolerance
    assert tolerance is not None
    left, level = curves.left, raised(curves.mean, ROUGHLY * tolerance)
    held, floor = left.held.copy(), _floor(start, left.weight)
    # Where groups have to change nodes, levelling the ranks that they are on now would be in vain.
    in_vain = pays(raised(floor, tolerance), curves.level, tolerance)
    busiest = _exchange(held, ~in_vain, level, curves)
    wholly = FEW * _transfers(held, start) <= start.problem.cluster.num_slots
    before = _exchange(
        left.held.copy(), ~in_vain & ~wholly, np.full(len(held), MAX), curves
    )  # none is above that level
    wholly = ~in_vain & (wholly | (before > FAR * curves.mean)) & (busiest > curves.level)
    level[wholly] = curves.level[wholly]
    busiest[wholly] = _exchange(held, wholly, level, curves)[wholly]
    busiest[in_vain] = level[in_vain]
    mean = left.weight.sum(axis=1) // len(start.alive)
    curves.look_at(np.flatnonzero((busiest > raised(mean, tolerance)) & pays(floor, busiest, tolerance)))
    in_vain[_take_anew(held, busiest, curves)] = False
    if in_vain.any():  # after all they keep their nodes; levelling may then end above the level
        busiest[in_vain] = _exchange(held, in_vain, level, curves)[in_vain]
        _take_anew(held, busiest, curves)
    return Within(held, _transfers(held, start), curves.anew)


def _take_anew(held: NDArray[np.int32], busiest: NDArray[np.int64], curves: Curves) -> NDArray[np.int64]:
    """Put plans made anew where they pay, in place; return the layers."""
    if curves.anew is None:
        return np.empty(0, dtype=np.int64)
    layers = curves.anew.layers
    taken = pays(curves.busiest, busiest[layers], curves.tolerance)
    held[layers[taken]] = curves.anew.held[taken]
    return layers[taken]


def _exchange(
    held: NDArray[np.int32], where: NDArray[np.bool_], level: NDArray[np.int64], curves: Curves
) -> NDArray[np.int64]:
    """Bring the layers ``where`` that is asked to ``level``, in place; return what their busiest ranks carry, or 0."""
    busiest = np.zeros(len(held), dtype=np.int64)
    if where.any():
        those = held[where]
        asked = those, curves.left.weight[where], curves.start.node, level[where]
        busiest[where] = exchange(*asked, curves.how.threads)
        held[where] = those
    return busiest


def _floor(start: InForce, weight: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what no plan undercuts, in the whole numbers of ``weight``: where that is near, none need be made."""
    problem = start.problem_of_those_left()
    if problem is None:
        return np.zeros(len(weight), dtype=np.int64)
    row = BOUNDS["grouping"]
    if row.holds(problem):
        none = np.zeros(problem.num_layers)
        bound = row.prove(problem, none, none)
    else:
        bound = lower_bounds(problem, quick=True)[0]
    total = problem.load.sum(axis=1)
    share = np.divide(bound, total, out=np.zeros_like(bound), where=total > 0)
    floor: NDArray[np.int64] = (share * weight.sum(axis=1)).astype(np.int64)
    return floor


def _transfers(held: NDArray[np.int32], start: InForce) -> NDArray[np.int64]:
    """Return how many slots of each layer hold an expert that their rank did not hold."""
    arrived: NDArray[np.int64] = (held >= 0).sum(axis=(1, 2)) - count_kept(held, start.slots).sum(axis=1)
    return arrived
