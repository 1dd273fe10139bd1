"""A checker that trusts nothing: it recounts a placement from its slots, and shares no code with the solver."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InvalidPlacementError
from equipoise.placement import Placement
from equipoise.problem import PlacementProblem

__all__ = ["check_placement"]


def check_placement(
    problem: PlacementProblem, placement: Placement, *, allow_duplicates: bool = True, allow_empty: bool = False
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

    Returns
    -------
    rank_load : float64 array, shape (num_layers, num_ranks)
        Recomputed from the load and the slots.

    Raises
    ------
    InvalidPlacementError
        With the layer and the slot, rank or expert at fault.
    """
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
    rank_load = np.zeros((layers, ranks))
    rank_of_slot = np.arange(slots) // cluster.slots_per_rank
    for layer in range(layers):
        row = table[layer]
        filled = row >= 0
        if not (allow_empty or filled.all()):
            raise InvalidPlacementError(f"layer {layer}, slot {int(np.argmin(filled))} is empty; fill every slot.")
        replicas = np.bincount(row[filled], minlength=experts)
        if (replicas == 0).any():
            raise InvalidPlacementError(
                f"layer {layer} has no slot for expert {int(np.argmax(replicas == 0))}; every expert needs one."
            )
        if not allow_duplicates:
            _refuse_duplicates(layer, row.reshape(ranks, -1))
        held = row[filled]
        np.add.at(rank_load[layer], rank_of_slot[filled], problem.load[layer][held] / replicas[held])
    if problem.is_hierarchical:
        _check_groups(problem, table)
    return rank_load


def _refuse_duplicates(layer: int, held: NDArray[np.int32]) -> None:
    for rank, experts in enumerate(held):
        once, times = np.unique(experts[experts >= 0], return_counts=True)
        if (times > 1).any():
            raise InvalidPlacementError(
                f"layer {layer}, rank {rank} holds expert {int(once[np.argmax(times > 1)])} "
                f"{int(times.max())} times; once is enough."
            )


def _check_groups(problem: PlacementProblem, table: NDArray[np.int32]) -> None:
    """Insist that each expert group lies on one node and that nodes hold equally many."""
    assert problem.num_expert_groups is not None
    nodes = problem.cluster.num_nodes
    group_size = problem.num_logical_experts // problem.num_expert_groups
    node_of_slot = np.arange(table.shape[1]) // (table.shape[1] // nodes)
    for layer, row in enumerate(table):
        node_of_group: dict[int, int] = {}
        for expert, node in zip(row.tolist(), node_of_slot.tolist(), strict=True):
            if expert < 0:
                continue
            home = node_of_group.setdefault(expert // group_size, node)
            if home != node:
                raise InvalidPlacementError(
                    f"layer {layer} has group {expert // group_size} on nodes {home} and {node}; "
                    "an expert group must lie whole on one node."
                )
        held = np.bincount(list(node_of_group.values()), minlength=nodes)
        if (held != held[0]).any():
            raise InvalidPlacementError(
                f"layer {layer} has {held.tolist()} expert groups on its nodes; every node needs the same number."
            )
