"""A checker that trusts nothing: it recounts a placement from its slots, and shares no code with the solver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, finite, flag
from equipoise.dispatch.shares import Shares
from equipoise.errors import InvalidInputError, InvalidPlacementError
from equipoise.kernels.recount import DOUBLED, EMPTY, MISSING, TORN, UNEVEN
from equipoise.placement import Placement
from equipoise.problem import PlacementProblem, as_problem

__all__ = ["check_placement", "check_time", "recount_time"]

Floats = NDArray[np.float64]

MISSED = 1e-6  # by which the shares of an expert may miss 1


def check_placement(
    problem: PlacementProblem,
    placement: Placement,
    *,
    allow_duplicates: bool = True,
    allow_empty: bool = False,
    shares: Shares | None = None,
) -> NDArray[np.float64]:
    """Return the rank loads of ``placement``, or say which rule of ``problem`` it breaks.

    Every slot holds an expert, so every rank is exactly full; every expert has a slot; in a
    hierarchical problem every expert group lies whole on one node, and every node holds the same
    number of groups.

    Parameters
    ----------
    problem : PlacementProblem
    placement : Placement
    allow_duplicates : bool, default True
        Whether two replicas of an expert may share a rank. False refuses them.
    allow_empty : bool, default False
        Whether slots may be empty, as they are on lost ranks and after a plan that moves little.
    shares : Shares or None, default None
        What part of its expert's tokens each slot gets; None is even parts.

    Returns
    -------
    rank_load : float64 array, shape (num_layers, num_ranks)
        Recomputed from the load and the slots.

    Raises
    ------
    InvalidPlacementError
        With the layer and the slot, rank or expert at fault.
    """
    from equipoise.kernels.recount.numba import recount

    as_problem(problem)
    as_instance(placement, Placement, "placement", "a Placement, such as plan.placement")
    flag(allow_duplicates, "allow_duplicates")
    flag(allow_empty, "allow_empty")
    cluster = problem.cluster
    layers, experts = problem.load.shape
    ranks, slots = cluster.num_ranks, cluster.num_slots
    table = placement.physical_to_logical
    if table.shape != (layers, slots) or placement.num_ranks != ranks or placement.num_logical_experts != experts:
        raise InvalidPlacementError(
            f"the placement has {table.shape[0]} layers of {table.shape[1]} slots on {placement.num_ranks} ranks for "
            f"{placement.num_logical_experts} experts; the problem has {layers} layers of {slots} slots on {ranks} "
            f"ranks for {experts} experts."
        )
    groups = (problem.num_expert_groups or 1) if problem.is_hierarchical else 1
    rank_load, flaws = recount(table, problem.load, ranks, cluster.num_nodes, groups)
    refused = MISSING | TORN | UNEVEN | (0 if allow_empty else EMPTY) | (0 if allow_duplicates else DOUBLED)
    if (flaws & refused).any():
        _explain(problem, table, flaws & refused)
    return rank_load if shares is None else _recount(problem, placement, shares)


def check_time(problem: PlacementProblem, placement: Placement, shares: Shares, routed_per_step: float) -> Floats:
    """Return the expected time of each rank, in microseconds, float64 [num_layers, num_ranks]: slot by slot, anew.

    Parameters
    ----------
    problem : PlacementProblem
        With a latency model.
    placement : Placement
    shares : Shares
        Of this placement; even ones among those of an expert that are active.
    routed_per_step : float
        Routed tokens of all ranks in one step.

    Raises
    ------
    InvalidPlacementError
        If the placement breaks a rule, or the shares are of another.
    InvalidInputError
        If the problem has no latency model.
    """
    as_instance(shares, Shares, "shares", "Shares of this placement")
    routed = finite(routed_per_step, "routed_per_step")
    check_placement(problem, placement, allow_empty=True, shares=shares)
    if problem.latency is None:
        raise InvalidInputError("problem has no latency model; pass PlacementProblem(..., latency=..., ...).")
    return recount_time(problem, placement, shares, routed)


def recount_time(problem: PlacementProblem, placement: Placement, shares: Shares, routed_per_step: float) -> Floats:
    """Return what ``check_time`` does, of a placement and shares that have been checked."""
    assert problem.latency is not None
    table = placement.physical_to_logical
    total = problem.load.sum(axis=1, keepdims=True)
    each = problem.load[np.arange(len(table))[:, None], table]  # of an empty slot, -1, the share is 0
    tokens = each / np.where(total > 0, total, 1.0) * routed_per_step * np.asarray(shares)
    return problem.latency.expected_rank_time(tokens.reshape(len(table), placement.num_ranks, -1))


def _recount(problem: PlacementProblem, placement: Placement, shares: Shares) -> NDArray[np.float64]:
    """Return what each rank carries with ``shares``, added slot by slot, each expert's shares counted again."""
    table, values = placement.physical_to_logical, np.asarray(as_instance(shares, Shares, "shares", "Shares, or None"))
    if values.shape != table.shape:
        raise InvalidPlacementError(
            f"shares has shape {values.shape}, the placement {table.shape}; pass its own shares."
        )
    layers, experts = problem.load.shape
    cell = np.arange(layers)[:, None] * experts + np.maximum(table, 0)
    part = np.where(table >= 0, values, 0.0)
    given = np.bincount(cell.ravel(), part.ravel(), layers * experts).reshape(layers, experts)
    carried = (problem.load.ravel()[cell] * part).reshape(layers, placement.num_ranks, -1)
    rank_load = np.zeros((layers, placement.num_ranks))
    for slot in range(carried.shape[2]):  # in the order of the slots: sums of floats depend on it
        rank_load += carried[:, :, slot]
    wrong = np.abs(given - 1) > MISSED
    if wrong.any():
        at, expert = (int(i) for i in np.argwhere(wrong)[0])
        raise InvalidPlacementError(f"layer {at} gives out {given[at, expert]} of expert {expert}; shares sum to 1.")
    return rank_load


def _explain(problem: PlacementProblem, table: NDArray[np.int32], flaws: NDArray[np.int64]) -> None:
    """Raise with the first flaw, in the order of ``FLAWS``, of the first layer that has it."""
    for flaw, describe in FLAWS.items():
        if (flaws & flaw).any():
            layer = int(np.argmax((flaws & flaw) > 0))
            raise InvalidPlacementError(f"layer {layer}{describe(problem, table[layer])}")


def _describe_empty(problem: PlacementProblem, slots: NDArray[np.int32]) -> str:
    return f", slot {int(np.argmax(slots < 0))} is empty; fill every slot."


def _describe_missing(problem: PlacementProblem, slots: NDArray[np.int32]) -> str:
    expert = int(np.argmin(np.isin(np.arange(problem.num_logical_experts), slots)))
    return f" has no slot for expert {expert}; every expert needs one."


def _describe_doubled(problem: PlacementProblem, slots: NDArray[np.int32]) -> str:
    for rank, held in enumerate(slots.reshape(problem.cluster.num_ranks, -1)):
        experts, times = np.unique(held[held >= 0], return_counts=True)
        if (times > 1).any():
            at = int(np.argmax(times > 1))
            return f", rank {rank} holds expert {experts[at]} {times[at]} times; once is enough."
    raise AssertionError("no rank holds an expert twice")


def _groups_of_nodes(problem: PlacementProblem, slots: NDArray[np.int32]) -> list[set[int]]:
    """Return the groups of which each node holds an expert."""
    assert problem.num_expert_groups is not None
    size = problem.num_logical_experts // problem.num_expert_groups
    return [set((held[held >= 0] // size).tolist()) for held in slots.reshape(problem.cluster.num_nodes, -1)]


def _describe_torn(problem: PlacementProblem, slots: NDArray[np.int32]) -> str:
    nodes = _groups_of_nodes(problem, slots)
    homes = {group: [n for n, held in enumerate(nodes) if group in held] for group in sorted(set().union(*nodes))}
    group = next(group for group, those in homes.items() if len(those) > 1)
    return (
        f" has group {group} on nodes {homes[group][0]} and {homes[group][1]}; "
        "an expert group must lie whole on one node."
    )


def _describe_uneven(problem: PlacementProblem, slots: NDArray[np.int32]) -> str:
    held = [len(groups) for groups in _groups_of_nodes(problem, slots)]
    return f" has {held} expert groups on its nodes; every node needs the same number."


FLAWS: dict[int, Callable[[PlacementProblem, NDArray[np.int32]], str]] = {
    EMPTY: _describe_empty,
    MISSING: _describe_missing,
    DOUBLED: _describe_doubled,
    TORN: _describe_torn,
    UNEVEN: _describe_uneven,
}
"""What to say of each flaw, in the order in which flaws are named."""
