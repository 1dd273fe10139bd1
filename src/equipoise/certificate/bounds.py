"""Lower bounds on the busiest rank: each with its argument, its domain, and its proof in words.

All hold for every placement of the problem, those with two replicas of an expert on one rank
included. Write w_e for the load of expert e, c_e for its replica count, W for the sum of the loads,
R ranks, S slots a rank, P = R S slots.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from equipoise.problem import PlacementProblem

__all__ = ["BOUNDS", "lower_bounds", "mean_rank_load", "replica_load"]

Floats = NDArray[np.float64]


def mean_rank_load(problem: PlacementProblem) -> Floats:
    """Some rank carries at least the mean, W / R. Domain: every problem."""
    mean: Floats = problem.load.sum(axis=1) / problem.cluster.num_ranks
    return mean


def replica_load(problem: PlacementProblem) -> Floats:
    """Some replica weighs at least t*, however the slots are given out. Domain: every problem.

    If no replica is to weigh more than t, expert e needs max(1, ceil(w_e / t)) slots. t* is the least t for
    which these fit into P; the rank that holds a replica of that size carries no less.
    """
    load, slots = problem.load, problem.cluster.num_slots
    low, high = np.zeros(len(load)), load.max(axis=1)
    for _ in range(64):
        middle = (low + high) / 2
        fits = _slots_needed(load, middle).sum(axis=1) <= slots
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    largest: Floats = (load / _slots_needed(load, high)).max(axis=1)
    return largest


def _slots_needed(load: Floats, largest: Floats) -> Floats:
    """Return how many slots each expert needs for no replica to exceed ``largest`` [layers]."""
    per_replica = np.maximum(largest, np.finfo(np.float64).tiny)[:, None]
    needed: Floats = np.maximum(1.0, np.ceil(load / per_replica))
    return needed


BOUNDS: dict[str, Callable[[PlacementProblem], Floats]] = {
    "mean": mean_rank_load,
    "replica": replica_load,
}
"""The arguments by name, the plainest first: of equal bounds the first is named."""


def lower_bounds(problem: PlacementProblem) -> tuple[Floats, tuple[str, ...]]:
    """Return the best bound of each layer and the name of its argument.

    Returns
    -------
    lower_bound : float64 array, shape (num_layers,)
        Tokens per window.
    bound : tuple of str, one per layer
    """
    names = list(BOUNDS)
    values = np.stack([BOUNDS[name](problem) for name in names])
    best = values.argmax(axis=0)
    return values.max(axis=0), tuple(names[i] for i in best)
