"""Some rank carries at least the mean, W / R: the ranks carry W together."""

from __future__ import annotations

from equipoise.bounds.bound import MEAN, Bound, Floats
from equipoise.problem import PlacementProblem

__all__ = ["BOUND"]


def _prove(problem: PlacementProblem, known: Floats, achieved: Floats) -> Floats:
    mean: Floats = problem.load.sum(axis=1) / problem.cluster.num_ranks
    return mean


BOUND = Bound(
    name="mean",
    argument="some rank carries at least the mean",
    proof=__doc__,
    domain="every problem",
    holds=lambda problem: True,
    prove=_prove,
    any_shares=True,
    held_up_by=MEAN,
    quick=True,
)
