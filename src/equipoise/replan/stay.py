"""Which layers keep the placement in force, where the budget says so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.recount import DOUBLED
from equipoise.problem import PlacementProblem
from equipoise.replan.budget import Budget

__all__ = ["recounted", "which_stay"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]


def which_stay(budget: Budget, now: Floats, saved: Floats, flaws: tuple[Int64s, Int64s]) -> Bools:
    """Return which layers stay; see ``Budget``.

    ``now`` is what the busiest rank of each layer has to do in the placement in force, ``saved`` what the next one
    takes off it, in tokens or in microseconds; ``flaws`` are those of both, see ``equipoise.kernels.recount``.
    """
    can_stay, is_doubled, gets_doubled = flaws[0] & ~DOUBLED == 0, flaws[0] & DOUBLED > 0, flaws[1] & DOUBLED > 0
    stays = np.zeros(len(now), dtype=np.bool_)
    if budget.min_gain is not None:
        stays |= (saved <= 0) | (saved < budget.min_gain * now)
        stays &= ~is_doubled | gets_doubled  # what has an expert twice on a rank without need is not worth keeping
    if budget.separate:
        stays |= gets_doubled
    stays &= can_stay
    if budget.max_layers is not None:
        free = np.flatnonzero(~stays & can_stay)
        by_gain = free[np.argsort(-saved[free], kind="stable")]
        stays[by_gain[max(budget.max_layers - int((~can_stay).sum()), 0) :]] = True
    return stays


def recounted(problem: PlacementProblem, table: NDArray[np.int32]) -> tuple[Floats, Int64s]:
    """Return the rank loads of a placement [layers, slots], and the flaws of each layer, as flags."""
    from equipoise.kernels.recount.numba import recount

    nodes, groups = (problem.cluster.num_nodes, problem.num_expert_groups) if problem.is_hierarchical else (1, 1)
    assert groups is not None
    rank_load, flaws = recount(table, problem.load, problem.cluster.num_ranks, nodes, groups)
    return rank_load, flaws
