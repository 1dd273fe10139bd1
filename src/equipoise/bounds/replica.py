"""Some replica weighs at least t*, however the slots are given out, and so does the rank that holds it.

If no replica is to weigh more than t, expert e needs max(1, ceil(w_e / t)) slots. t* is the least t for which these fit
into P; the rank that holds a replica of that size carries no less. The counts that reach t* are known (see
``equipoise.kernels.replication``); that they are the best is checked here, by counting the slots that anything smaller
would need.

Uneven shares make one of the replicas of an expert larger than even ones do, so the bound holds for any.

t* is more than the mean only where the slots do not keep all replicas to the mean. No more than w / mean + 1 slots keep
those of an expert with load w to it, which are R + E over all E experts: with as many slots, t* is no more than the
mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds.bound import SLOTS, Bound, Floats
from equipoise.fixed_point import to_fixed_point
from equipoise.problem import PlacementProblem

__all__ = ["BOUND", "slots_needed"]


def slots_needed(load: Floats, largest: Floats) -> Floats:
    """Return how many slots each expert needs for no replica to exceed ``largest`` [layers]."""
    per_replica = np.maximum(largest, np.finfo(np.float64).tiny)[:, None]
    needed: Floats = np.maximum(1.0, np.ceil(load / per_replica))
    return needed


def _exceeds_known(problem: PlacementProblem, known: Floats, achieved: Floats) -> NDArray[np.bool_]:
    """Whether t* is more than what is ``known``, which is the mean at least."""
    load, cluster = problem.load, problem.cluster
    if cluster.num_slots >= cluster.num_ranks + problem.num_logical_experts:
        return np.zeros(problem.num_layers, dtype=np.bool_)
    more: NDArray[np.bool_] = load.max(axis=1) > known
    layers = np.flatnonzero(more)
    if len(layers):
        more[layers] = slots_needed(load[layers], known[layers]).sum(axis=1) > cluster.num_slots
    return more


def _prove(problem: PlacementProblem, known: Floats, achieved: Floats) -> Floats:
    from equipoise.kernels.replication.numba import replicate

    load, slots = problem.load, problem.cluster.num_slots
    _, replica_count = replicate(to_fixed_point(load), slots, slots)
    largest: Floats = (load / replica_count).max(axis=1)
    proved = (largest == 0) | (slots_needed(load, largest * (1 - 1e-13)).sum(axis=1) > slots)
    if not proved.all():  # the counts were made on rounded loads, and a tie was decided the other way
        largest[~proved] = _bisect_largest_replica(load[~proved], slots)
    return largest


def _bisect_largest_replica(load: Floats, slots: int) -> Floats:
    """Return a size that is too small for every replica to keep to, as large as 64 halvings find."""
    low, high = np.zeros(len(load)), load.max(axis=1)
    for _ in range(64):
        middle = (low + high) / 2
        fits = slots_needed(load, middle).sum(axis=1) <= slots
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    return low


BOUND = Bound(
    name="replica",
    argument="however the slots are given out, some replica weighs at least t*, and so does the rank that holds it",
    proof=__doc__,
    domain="every problem",
    holds=lambda problem: True,
    prove=_prove,
    any_shares=True,
    held_up_by=SLOTS,
    quick=True,
    worth=_exceeds_known,
)
