"""A plan made anew for what may come: replicas where load is hot or volatile, then swaps against past errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import CheckedLoad
from equipoise.problem import PlacementProblem
from equipoise.robust.rows import MOST_EXPERTS, rows_of, start_load

__all__ = ["hedged", "node_of_rank", "start_problem", "with_errors"]

Ints = NDArray[np.int32]


def start_problem(problem: PlacementProblem) -> PlacementProblem:
    """Return the problem whose plan is the start: of the forecast and .67 standard deviations of its errors.

    That is ``problem`` itself where it has no forecast, or one without errors.
    """
    if problem.forecast is None or not with_errors(problem).any():
        return problem
    return PlacementProblem(CheckedLoad(start_load(problem.forecast)), problem.cluster, problem.num_expert_groups)


def hedged(problem: PlacementProblem, physical_to_logical: Ints, threads: int | None) -> Ints:
    """Return the slots [layers, slots] after the swaps, in the layers whose forecast has errors; others stay."""
    from equipoise.robust.numba import swap

    layers = np.flatnonzero(with_errors(problem))
    if problem.forecast is None or not len(layers):
        return physical_to_logical
    ranks = problem.cluster.num_ranks
    held = physical_to_logical[layers].reshape(len(layers), ranks, -1)
    swap(rows_of(problem.forecast.of_layers(layers), ranks), held, node_of_rank(problem), threads)
    table: Ints = physical_to_logical.copy()
    table[layers] = held.reshape(len(layers), -1)
    return table


def with_errors(problem: PlacementProblem) -> NDArray[np.bool_]:
    """Return which layers are planned against errors, bool [layers]: none of more than 2,048 experts."""
    if problem.forecast is None or problem.num_logical_experts > MOST_EXPERTS:
        return np.zeros(problem.num_layers, dtype=np.bool_)
    has: NDArray[np.bool_] = problem.forecast.has_errors
    return has


def node_of_rank(problem: PlacementProblem) -> Ints:
    """Return the node of each rank where groups must keep to theirs, else 0: int32 [ranks]."""
    per_node = problem.cluster.ranks_per_node if problem.is_hierarchical else problem.cluster.num_ranks
    node: Ints = (np.arange(problem.cluster.num_ranks) // per_node).astype(np.int32)
    return node
