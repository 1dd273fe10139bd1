"""Level enough with few transfers, quickly: what a serving engine asks for where nobody set a limit.

A layer is level if its busiest rank carries at most the tolerance more than the mean, and then it is left alone. Else
its ranks change places, pair by pair, until it is level (``pairs/``). Few layers do not get there: where one expert is
too hot for its replicas, ranks have too few slots, or whole groups on nodes leave one node with too much. Those are
planned anew, and take that plan where it leaves the busiest rank lighter by half as much again as the tolerance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.how import How
from equipoise.replan.budget import Budget
from equipoise.replan.curves import Curves, Within, pays, raised
from equipoise.replan.in_force import InForce
from equipoise.replan.pairs.numba import exchange
from equipoise.replan.remainder import count_kept
from equipoise.threads import part

__all__ = ["settle"]


@part
def settle(start: InForce, budget: Budget, how: How) -> Within:
    """Return the placement in force, levelled to the tolerance of ``budget``, and what of it was made anew.

    With a tolerance t, what a layer's busiest rank carries is at most 1 + t times the mean, or 1 / (1 - 1.5 t) times
    what it carries in a plan made anew.
    """
    curves = Curves(start, how, budget)
    left = curves.left
    held = left.held.copy()
    busiest = exchange(held, left.weight, start.node, curves.level, how.threads)
    # Not the level of the busiest node: groups may have to change nodes.
    mean = left.weight.sum(axis=1) // len(start.alive)
    curves.look_at(np.flatnonzero(busiest > raised(mean, budget.tolerance)))
    if curves.anew is not None:
        layers = curves.anew.layers
        taken = pays(curves.busiest, busiest[layers], budget.tolerance)
        held[layers[taken]] = curves.anew.held[taken]
    return Within(held, _transfers(held, start), curves.anew)


def _transfers(held: NDArray[np.int32], start: InForce) -> NDArray[np.int64]:
    """Return how many slots of each layer hold an expert that their rank did not hold."""
    arrived: NDArray[np.int64] = (held >= 0).sum(axis=(1, 2)) - count_kept(held, start.slots).sum(axis=1)
    return arrived
