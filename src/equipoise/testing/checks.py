"""What must hold for every placement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.certificate import check_placement
from equipoise.errors import InvalidPlacementError
from equipoise.placement import Placement
from equipoise.problem import PlacementProblem

__all__ = ["assert_valid_placement", "avoidable_duplicates"]


def assert_valid_placement(problem: PlacementProblem, placement: Placement) -> NDArray[np.float64]:
    """Insist that ``placement`` answers ``problem``, with no duplicate that could have been avoided.

    Returns
    -------
    rank_load : float64 array, shape (num_layers, num_ranks)
        Recomputed from the slots.

    Raises
    ------
    AssertionError
        With the layer and what is wrong in it.

    Examples
    --------
    >>> from equipoise import Cluster
    >>> problem = PlacementProblem([[4.0, 2.0, 1.0]], Cluster(num_ranks=2, slots_per_rank=2))
    >>> assert_valid_placement(problem, Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)).tolist()
    [[4.0, 3.0]]
    """
    try:
        rank_load = check_placement(problem, placement)
    except InvalidPlacementError as error:
        raise AssertionError(str(error)) from error
    avoidable = avoidable_duplicates(problem, placement)
    if avoidable.any():
        layer = int(avoidable.argmax())
        raise AssertionError(
            f"layer {layer} has {int(avoidable[layer])} slots whose rank already holds the same expert, "
            "though no expert of the layer has more replicas than it may have ranks."
        )
    return rank_load


def avoidable_duplicates(problem: PlacementProblem, placement: Placement) -> NDArray[np.int64]:
    """Return the duplicates of each layer, 0 where some expert has more replicas than ranks to put them on.

    int64, shape (num_layers,). In a hierarchical problem an expert has the ranks of one node, and there two of its
    replicas on one rank can be better than anything else: they give that rank a larger share. So they are not counted.
    """
    if problem.is_hierarchical:
        return np.zeros(placement.num_layers, np.int64)
    fits = placement.replica_count.max(axis=1) <= problem.cluster.num_ranks
    return np.where(fits, placement.num_duplicates, 0)
