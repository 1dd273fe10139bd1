"""Layers that keep the placement in force in time: its weights stay, and replicas that are not worth it sleep."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.checker import recount_time
from equipoise.kernels.recount import DOUBLED
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem
from equipoise.replan.budget import Budget
from equipoise.replan.in_force import InForce
from equipoise.replan.stay import recounted, which_stay
from equipoise.timed import Timed, even_among

__all__ = ["keep_layers"]

Bools = NDArray[np.bool_]


def keep_layers(found: Timed, start: InForce, budget: Budget, current: Any) -> Timed:
    """Return ``found`` with the placement in force, of the same ranks and slots, where ``budget`` says so.

    A layer that stays is no slower at any batch size than with all its replicas active: see
    ``equipoise.timing.settled``, which starts from the active ones of ``current`` too if that is a plan in time. What
    a layer saves by moving is the mean over batch sizes of microseconds of its busiest rank.
    """
    problem, kept = start.problem, start.placement.physical_to_logical
    flaws = recounted(problem, kept)[1], recounted(problem, found.table)[1]
    can_stay = flaws[0] & ~DOUBLED == 0
    stayed = dataclasses.replace(found, table=np.where(can_stay[:, None], kept, found.table))
    stayed = dataclasses.replace(stayed, active=_active(stayed, problem, current, can_stay))
    now, after = _times(stayed, problem), _times(found, problem)
    stays = which_stay(budget, now, now - after, flaws)[:, None]
    active = np.where(stays, stayed.active, found.active)
    return dataclasses.replace(found, table=np.where(stays, kept, found.table), active=active)


def _active(stayed: Timed, problem: PlacementProblem, current: Any, can_stay: Bools) -> Bools:
    """Return which slots of placements that stay are active [batch sizes, layers, slots]."""
    from equipoise.timing.settled import levels_of

    assert problem.latency is not None
    sizes = problem.batch_sizes
    if problem.latency.is_proportional:  # then tokens are time, and all of them are active as in a plan for tokens
        return np.ones((len(sizes), *stayed.table.shape), np.bool_)
    held = stayed.table.reshape(len(stayed.table), problem.cluster.num_ranks, -1)
    known = []
    if isinstance(current, Plan) and current.time is not None:
        active = np.stack([current.shares_for(size).values > 0 for size in sizes])
        level = len(sizes) - np.logical_or.accumulate(active).sum(axis=0)
        known.append(np.where(can_stay[:, None], level, 0).reshape(held.shape))
    level = levels_of(stayed.in_time, held, known).reshape(stayed.table.shape)
    return np.asarray(level <= np.arange(len(sizes))[:, None, None])


def _times(found: Timed, problem: PlacementProblem) -> NDArray[np.float64]:
    """Return the microseconds of the busiest rank of each layer, mean of batch sizes."""
    placement = Placement(found.table, problem.cluster.num_ranks, problem.num_logical_experts)
    each = [
        recount_time(problem, placement, even_among(placement, active), size).max(axis=1)
        for active, size in zip(found.active, problem.batch_sizes, strict=True)
    ]
    return np.asarray(np.mean(each, axis=0))
