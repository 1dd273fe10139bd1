"""The table of lower bounds on the busiest rank, and how it is read: certifying, re-planning and joint descent do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import flag
from equipoise.arrays import CheckedLoad
from equipoise.bounds import company, grouping, hottest, mean, pigeonhole, replica, threshold
from equipoise.bounds.bound import Bound, Floats
from equipoise.errors import InvalidInputError
from equipoise.metrics import as_layers
from equipoise.problem import Cluster, PlacementProblem, as_problem
from equipoise.threads import part

__all__ = ["BOUNDS", "first_floor", "lower_bounds", "raise_floor"]

ROWS = (mean, replica, grouping, pigeonhole, threshold, company, hottest)
BOUNDS: dict[str, Bound] = {row.BOUND.name: row.BOUND for row in ROWS}
"""The arguments by name, in the order in which they are asked, the plainest first: of equal ones the first is named."""


@part
def lower_bounds(
    problem: PlacementProblem, achieved: Floats | None = None, *, quick: bool = False, any_shares: bool = False
) -> tuple[Floats, tuple[str, ...]]:
    """Return the best bound of each layer and the name of its argument.

    Parameters
    ----------
    problem : PlacementProblem
    achieved : float64 array, shape (num_layers,), optional
        A busiest rank that some placement reaches. Bounds that take long are then left out for layers that the others
        bring close to it; each row of ``BOUNDS`` says how close.
    quick : bool, default False
        Whether to ask only the quick ones, which hold where slots are empty too.
    any_shares : bool, default False
        Whether to ask only those that hold however tokens are shared among replicas, and not only for even parts.

    Returns
    -------
    lower_bound : float64 array, shape (num_layers,)
        Tokens per window.
    bound : tuple of str, one per layer
    """
    as_problem(problem)
    flag(quick, "quick")
    flag(any_shares, "any_shares")
    names = np.full(problem.num_layers, mean.BOUND.name, dtype=object)
    best = np.zeros(problem.num_layers)
    achieved = np.full_like(best, np.inf) if achieved is None else as_layers(achieved, "achieved")
    if len(achieved) != len(best):
        raise InvalidInputError(f"achieved has {len(achieved)} entries; it needs one for each of {len(best)} layers.")
    for row in BOUNDS.values():
        if (quick and not row.quick) or (any_shares and not row.any_shares) or not row.holds(problem):
            continue
        layers = np.flatnonzero(row.worth(problem, best, achieved))
        if not len(layers):
            continue
        values = row.prove(_of_layers(problem, layers), best[layers], achieved[layers])
        better = values > best[layers]
        names[layers[better]] = row.name
        best[layers[better]] = values[better]
    return best, tuple(names)


def first_floor(problem: PlacementProblem, fixed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what the busiest rank of each layer need not go below, by the bounds that joint descent begins with.

    int64 [layers], in the integers ``fixed`` [layers, experts] that it adds instead of the problem's loads.
    """
    best = np.zeros(problem.num_layers)
    for row in BOUNDS.values():
        if row.begins and row.holds(problem):
            own = PlacementProblem(CheckedLoad(fixed.astype(np.float64)), problem.cluster)
            best = np.maximum(best, row.prove(own, best, np.full_like(best, np.inf)))
    return best.astype(np.int64)


def raise_floor(
    weight: NDArray[np.int64],
    num_ranks: int,
    slots_per_rank: int,
    known: NDArray[np.int64],
    achieved: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return what the busiest rank of each row need not go below, in the integers that joint descent adds.

    ``weight`` int64 [rows, experts]; ``known`` int64 [rows] is what is proved already, at least the mean and t*, and
    ``achieved`` int64 [rows] what the row reaches. Only bounds that guide a search are asked, where they say so.
    """
    problem = PlacementProblem(CheckedLoad(weight.astype(np.float64)), Cluster(num_ranks, slots_per_rank))
    best, reached = known.astype(np.float64), achieved.astype(np.float64)
    for row in BOUNDS.values():
        if row.guides is None or not row.holds(problem):
            continue
        rows = np.flatnonzero(row.guides(problem, best, reached))
        if len(rows):
            best[rows] = np.maximum(best[rows], row.prove(problem.of_layers(rows), best[rows], reached[rows]))
    return np.maximum(known, best.astype(np.int64))


def _of_layers(problem: PlacementProblem, layers: NDArray[np.int64]) -> PlacementProblem:
    return problem if len(layers) == problem.num_layers else problem.of_layers(layers)
