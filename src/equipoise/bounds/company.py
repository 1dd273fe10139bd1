"""A large replica does not have its rank to itself: T must leave room for S - 1 others.

Let n_e = max(1, ceil(w_e / T)) be the slots that e needs and s = P - sum n_e the rest. No replica of f weighs less than
r_f = w_f / (n_f + s), and beside a replica of more than T / 2 lies no second one of its expert. The other S - 1 slots
of its rank hold experts with n_f = 1 once each, save for s repetitions, or experts with n_f > 1: together at least
sigma, the sum of the S - 1 - s least r_f, the least r_f with n_f > 1 standing for as many as wanted. So no replica
exceeds max(T - sigma, T / 2), and T is impossible if that needs more than P slots. What is impossible for T is so for
all less: sigma and s only shrink. With no redundant experts this is the heaviest expert plus the S - 1 lightest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds.bound import SLOTS, Bound, Floats, open_beyond
from equipoise.bounds.replica import slots_needed
from equipoise.problem import PlacementProblem

__all__ = ["BOUND"]

HALVINGS = 36  # of a range as wide as the bound: 1e-11 of it


def _prove(problem: PlacementProblem, known: Floats, achieved: Floats) -> Floats:
    """Raise what is ``known``, which is at least the mean and t*."""
    low: Floats = known.copy()
    open_ = np.flatnonzero(_leaves_no_room(problem, low))  # what is possible already is so for all more
    if not len(open_):
        return low
    part = problem.of_layers(open_)
    least, most = low[open_], 2 * low[open_]  # t* and the company, which is no more than a mean rank
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        impossible = _leaves_no_room(part, middle)
        least, most = np.where(impossible, middle, least), np.where(impossible, most, middle)
    low[open_] = least
    return low


def _leaves_no_room(problem: PlacementProblem, busiest: Floats) -> NDArray[np.bool_]:
    """Whether the argument refutes that no rank exceeds ``busiest`` [layers]."""
    load, slots, others = problem.load, problem.cluster.num_slots, problem.cluster.slots_per_rank - 1
    need = slots_needed(load, busiest)
    spare = np.maximum(slots - need.sum(axis=1), 0)
    least = load / (need + spare[:, None])
    repeated = np.where(need > 1, least, np.inf).min(axis=1, keepdims=True)
    alone = np.where(need > 1, np.inf, least)
    alone = np.partition(alone, others - 1, axis=1)[:, :others] if others < alone.shape[1] else alone
    least = np.minimum(np.sort(alone, axis=1), repeated)
    counted = np.arange(least.shape[1]) < others - spare[:, None]
    sigma = np.where(counted, least, 0.0).sum(axis=1)
    refuted: NDArray[np.bool_] = slots_needed(load, np.maximum(busiest - sigma, busiest / 2)).sum(axis=1) > slots
    return refuted


BOUND = Bound(
    name="company",
    argument="a large replica does not have its rank to itself: it leaves room for the other slots",
    proof=__doc__,
    domain="two slots a rank or more",
    holds=lambda problem: problem.cluster.slots_per_rank > 1,
    prove=_prove,
    held_up_by=SLOTS,
    worth=open_beyond(0.005),
)
