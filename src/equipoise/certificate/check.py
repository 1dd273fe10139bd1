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
    cell = table + np.arange(layers, dtype=np.int64)[:, None] * experts  # one number for each (layer, expert)
    empty = table < 0
    any_empty = bool(empty.any())
    if any_empty and not allow_empty:
        layer, slot = _first(empty)
        raise InvalidPlacementError(f"layer {layer}, slot {slot} is empty; fill every slot.")
    replicas = np.bincount(cell[~empty] if any_empty else cell.ravel(), minlength=layers * experts)
    if (replicas == 0).any():
        layer, expert = divmod(int(np.argmin(replicas)), experts)
        raise InvalidPlacementError(f"layer {layer} has no slot for expert {expert}; every expert needs one.")
    if not allow_duplicates and placement.num_duplicates.any():
        _refuse_duplicates(table.reshape(layers, ranks, -1))
    if problem.is_hierarchical:
        _check_groups(problem, table)
    each = problem.load.ravel() / replicas
    slot_load = np.where(empty, 0.0, each[cell]) if any_empty else each[cell]
    rank_load: NDArray[np.float64] = slot_load.reshape(layers, ranks, -1).sum(axis=2)
    return rank_load


def _first(wrong: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))


def _refuse_duplicates(held: NDArray[np.int32]) -> None:
    """Name the first rank that holds an expert twice; ``held`` [layers, ranks, slots per rank] has one."""
    held = np.sort(held, axis=2)
    layer, rank, at = _first((held[:, :, 1:] == held[:, :, :-1]) & (held[:, :, 1:] >= 0))
    times = int((held[layer, rank] == held[layer, rank, at]).sum())
    raise InvalidPlacementError(
        f"layer {layer}, rank {rank} holds expert {held[layer, rank, at]} {times} times; once is enough."
    )


def _check_groups(problem: PlacementProblem, table: NDArray[np.int32]) -> None:
    """Insist that each expert group lies on one node and that nodes hold equally many."""
    assert problem.num_expert_groups is not None
    groups, nodes = problem.num_expert_groups, problem.cluster.num_nodes
    layers, slots = table.shape
    group = table // (problem.num_logical_experts // groups)
    node = np.arange(slots) // (slots // nodes)
    cell = (np.arange(layers)[:, None] * groups + group) * nodes + node
    here = np.bincount(cell[table >= 0], minlength=layers * groups * nodes).reshape(layers, groups, nodes) > 0
    torn = here.sum(axis=2) > 1
    if torn.any():
        layer, which = _first(torn)
        homes = np.flatnonzero(here[layer, which]).tolist()
        raise InvalidPlacementError(
            f"layer {layer} has group {which} on nodes {homes[0]} and {homes[1]}; "
            "an expert group must lie whole on one node."
        )
    held = here.sum(axis=1)
    uneven = (held != held[:, :1]).any(axis=1)
    if uneven.any():
        (layer,) = _first(uneven)
        raise InvalidPlacementError(
            f"layer {layer} has {held[layer].tolist()} expert groups on its nodes; every node needs the same number."
        )
