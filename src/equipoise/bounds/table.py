"""Lower bounds on the busiest rank: each with its argument, its domain, and its proof in words.

All hold for every placement of the problem, those with two replicas of an expert on one rank
included. Write w_e for the load of expert e, c_e for its replica count, W for the sum of the loads,
R ranks, S slots a rank, P = R S slots.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds import hottest, threshold
from equipoise.bounds.grouping import best_groupings
from equipoise.bounds.hottest import DOMINATES
from equipoise.fixed_point import to_fixed_point
from equipoise.problem import PlacementProblem

__all__ = [
    "BOUNDS",
    "company_load",
    "grouping_load",
    "hottest_load",
    "lower_bounds",
    "mean_rank_load",
    "replica_load",
    "threshold_load",
]

Floats = NDArray[np.float64]
HALVINGS = 36  # of a range as wide as the bound: 1e-11 of it


def mean_rank_load(problem: PlacementProblem) -> Floats:
    """Some rank carries at least the mean, W / R. Domain: every problem."""
    mean: Floats = problem.load.sum(axis=1) / problem.cluster.num_ranks
    return mean


def replica_load(problem: PlacementProblem) -> Floats:
    """Some replica weighs at least t*, however the slots are given out. Domain: every problem.

    If no replica is to weigh more than t, expert e needs max(1, ceil(w_e / t)) slots. t* is the least t for
    which these fit into P; the rank that holds a replica of that size carries no less. The counts that
    reach t* are known (see ``equipoise.kernels.replication``); that they are the best is checked here, by counting the
    slots that anything smaller would need.
    """
    from equipoise.kernels.replication.numba import replicate

    load, slots = problem.load, problem.cluster.num_slots
    _, replica_count = replicate(to_fixed_point(load), slots, slots)
    largest: Floats = (load / replica_count).max(axis=1)
    proved = (largest == 0) | (_slots_needed(load, largest * (1 - 1e-13)).sum(axis=1) > slots)
    if not proved.all():  # the counts were made on rounded loads, and a tie was decided the other way
        largest[~proved] = _bisect_largest_replica(load[~proved], slots)
    return largest


def _bisect_largest_replica(load: Floats, slots: int) -> Floats:
    """Return a size that is too small for every replica to keep to, as large as 64 halvings find."""
    low, high = np.zeros(len(load)), load.max(axis=1)
    for _ in range(64):
        middle = (low + high) / 2
        fits = _slots_needed(load, middle).sum(axis=1) <= slots
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    return low


def _slots_needed(load: Floats, largest: Floats) -> Floats:
    """Return how many slots each expert needs for no replica to exceed ``largest`` [layers]."""
    per_replica = np.maximum(largest, np.finfo(np.float64).tiny)[:, None]
    needed: Floats = np.maximum(1.0, np.ceil(load / per_replica))
    return needed


def grouping_load(problem: PlacementProblem) -> Floats:
    """Whole groups on nodes leave some node with too much, whichever way they are put. Domain: few groupings.

    For each way to put equally many groups on each node, the busiest node's ranks carry at least its mean
    rank load and its own t*; the least of that over all ways is a bound. 0 where the problem is not
    hierarchical or the ways are too many to try.
    """
    best = best_groupings(problem, problem.load) if problem.is_hierarchical else None
    return np.zeros(problem.num_layers) if best is None else best[1]


def company_load(problem: PlacementProblem, known: Floats | None = None) -> Floats:
    """A large replica does not have its rank to itself: T must leave room for S - 1 others. Domain: S >= 2.

    Let T be the busiest rank, n_e = max(1, ceil(w_e / T)) the slots that e needs and s = P - sum n_e the rest. No
    replica of f weighs less than r_f = w_f / (n_f + s), and beside a replica of more than T / 2 lies no second one of
    its expert. The other S - 1 slots of its rank hold experts with n_f = 1 once each, save for s
    repetitions, or experts with n_f > 1: together at least sigma, the sum of the S - 1 - s least r_f, the
    least r_f with n_f > 1 standing for as many as wanted. So no replica exceeds max(T - sigma, T / 2), and T is
    impossible if that needs more than P slots. What is impossible for T is so for all less: sigma and
    s only shrink. With no redundant experts this is the heaviest expert plus the S - 1 lightest.
    """
    low: Floats = np.maximum(mean_rank_load(problem), replica_load(problem) if known is None else known)
    if problem.cluster.slots_per_rank == 1:
        return low
    open_ = np.flatnonzero(_leaves_no_room(problem, low))  # what is possible already is so for all more
    part = problem.of_layers(open_) if len(open_) else problem
    least, most = low[open_], 2 * low[open_]  # t* and the company, which is no more than a mean rank
    for _ in range(HALVINGS if len(open_) else 0):
        middle = (least + most) / 2
        impossible = _leaves_no_room(part, middle)
        least, most = np.where(impossible, middle, least), np.where(impossible, most, middle)
    low[open_] = least
    return low


def _leaves_no_room(problem: PlacementProblem, busiest: Floats) -> NDArray[np.bool_]:
    """Whether ``company_load`` refutes that no rank exceeds ``busiest`` [layers]."""
    load, slots, others = problem.load, problem.cluster.num_slots, problem.cluster.slots_per_rank - 1
    need = _slots_needed(load, busiest)
    spare = np.maximum(slots - need.sum(axis=1), 0)
    least = load / (need + spare[:, None])
    repeated = np.where(need > 1, least, np.inf).min(axis=1, keepdims=True)
    alone = np.where(need > 1, np.inf, least)
    alone = np.partition(alone, others - 1, axis=1)[:, :others] if others < alone.shape[1] else alone
    least = np.minimum(np.sort(alone, axis=1), repeated)
    counted = np.arange(least.shape[1]) < others - spare[:, None]
    sigma = np.where(counted, least, 0.0).sum(axis=1)
    refuted: NDArray[np.bool_] = _slots_needed(load, np.maximum(busiest - sigma, busiest / 2)).sum(axis=1) > slots
    return refuted


def threshold_load(problem: PlacementProblem, known: Floats | None = None, achieved: Floats | None = None) -> Floats:
    """Large replicas need small company, and slots make only so much of it. Domain: S >= 2.

    See ``equipoise.bounds.threshold``. Starts from what is ``known`` [layers]; what some placement is known to have
    ``achieved`` [layers] saves time.
    """
    low = np.maximum(mean_rank_load(problem), replica_load(problem)) if known is None else known
    achieved = np.full_like(low, np.inf) if achieved is None else achieved
    return threshold.bound(problem.load, low, achieved, problem.cluster.num_ranks, problem.cluster.slots_per_rank)


def hottest_load(problem: PlacementProblem, known: Floats | None = None, achieved: Floats | None = None) -> Floats:
    """Each count of the hottest expert leaves its ranks too little, or the others too few ranks. Domain: S >= 2.

    See ``equipoise.bounds.hottest``. Starts from what is ``known`` [layers]; what some placement is known to have
    ``achieved`` [layers] saves time.
    """
    low = np.maximum(mean_rank_load(problem), replica_load(problem)) if known is None else known
    achieved = np.full_like(low, np.inf) if achieved is None else achieved
    descending = -np.sort(-problem.load, axis=1)
    return hottest.bound(descending, low, achieved, problem.cluster.num_ranks, problem.cluster.slots_per_rank)


BOUNDS: dict[str, Callable[[PlacementProblem], Floats]] = {
    "mean": mean_rank_load,
    "replica": replica_load,
    "grouping": grouping_load,
    "company": company_load,
    "threshold": threshold_load,
    "hottest": hottest_load,
}
"""The arguments by name, the plainest first: of equal bounds the first is named."""

# Relative; a layer that other bounds prove to be this good is not worth the last three, which take longer. The last is
# quick, and proves most where one expert dominates.
CLOSE, CLOSE_DOMINATED = 0.005, 0.001


def lower_bounds(problem: PlacementProblem, achieved: Floats | None = None) -> tuple[Floats, tuple[str, ...]]:
    """Return the best bound of each layer and the name of its argument.

    Parameters
    ----------
    problem : PlacementProblem
    achieved : float64 array, shape (num_layers,), optional
        A busiest rank that some placement reaches. The last three bounds, which take longest, are then
        left out for layers that the others bring within half a percent of it; the last is tried down to a tenth of a
        percent where one expert dominates.

    Returns
    -------
    lower_bound : float64 array, shape (num_layers,)
        Tokens per window.
    bound : tuple of str, one per layer
    """
    names = np.full(problem.num_layers, "mean", dtype=object)
    best = mean_rank_load(problem)

    def improve(name: str, layers: NDArray[np.int64], values: Floats) -> None:
        better = values > best[layers]
        names[layers[better]] = name
        best[layers[better]] = values[better]

    too_few = np.flatnonzero(problem.load.max(axis=1) > best)  # elsewhere t* is no more than the mean
    too_few = too_few[_slots_needed(problem.load[too_few], best[too_few]).sum(axis=1) > problem.cluster.num_slots]
    if len(too_few):
        improve("replica", too_few, replica_load(problem.of_layers(too_few)))
    if problem.is_hierarchical:
        improve("grouping", np.arange(problem.num_layers), grouping_load(problem))
    achieved = np.full_like(best, np.inf) if achieved is None else achieved
    open_ = np.flatnonzero(achieved > best * (1 + CLOSE))
    if len(open_):
        improve("threshold", open_, threshold_load(problem.of_layers(open_), best[open_], achieved[open_]))
        improve("company", open_, company_load(problem.of_layers(open_), best[open_]))
    open_ = np.flatnonzero(achieved > best * (1 + CLOSE_DOMINATED))
    if len(open_):
        load = problem.load[open_]
        dominated = DOMINATES * load.max(axis=1) >= load.sum(axis=1)
        open_ = open_[dominated | (achieved[open_] > best[open_] * (1 + CLOSE))]
    if len(open_):
        improve("hottest", open_, hottest_load(problem.of_layers(open_), best[open_], achieved[open_]))
    return best, tuple(names)
