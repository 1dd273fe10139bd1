"""Pruned restarts from tensors to tensors: nothing leaves the device, and nothing waits for it except to return."""

from __future__ import annotations

from typing import Any

from equipoise.arrays import is_torch, like
from equipoise.backends import Backend
from equipoise.errors import InvalidInputError
from equipoise.fixed_point import fixed_point_steps
from equipoise.kernels.separate.numba import separate_duplicates
from equipoise.problem import Cluster
from equipoise.restarts.pack import KEY_SHIFT, check_seed
from equipoise.restarts.settings import Settings

__all__ = ["pack_tensors", "place_tensors", "stays_on_device"]


def stays_on_device(weight: Any, backend: Backend) -> bool:
    """Whether ``weight`` is a tensor and ``backend`` packs tensors."""
    return is_torch(weight) and backend.name in ("torch", "triton")


def pack_tensors(weight: Any, num_packs: int, settings: Settings, seed: int, backend: Backend) -> tuple[Any, Any]:
    """Return the pack of each item and its place there: int64 tensors [rows, items], where ``weight`` is."""
    from equipoise.restarts import tensors

    fixed, right = tensors.to_fixed_point(weight, *fixed_point_steps(weight.shape[1], num_packs))
    packed = tensors.pack(fixed, num_packs, settings, check_seed(seed), KEY_SHIFT, backend.load())
    _insist(right)
    return packed


def place_tensors(
    weight: Any, cluster: Cluster, num_groups: int | None, settings: Settings, seed: int, backend: Backend
) -> tuple[Any, Any, Any]:
    """Return the maps of a pruned-restarts plan as int64 tensors: slot to expert, expert to slots, replica counts.

    The same plan as ``PrunedRestarts.place`` makes on the host; hierarchical unless ``num_groups`` is None. Two
    replicas on one rank, which are rare, are moved apart on the host.
    """
    from equipoise.restarts import tensors

    kernel, seed = backend.load(), check_seed(seed)
    layers, experts = weight.shape
    nodes = cluster.num_nodes if num_groups is not None else 1
    fixed, right = tensors.to_fixed_point(weight, *fixed_point_steps(experts, cluster.num_ranks))
    rows, expert = fixed, None
    if num_groups is not None:
        group_weight = fixed.reshape(layers, num_groups, -1).sum(2)
        node_of_group, _ = tensors.pack(group_weight, nodes, settings, seed, KEY_SHIFT, kernel)
        rows, expert = tensors.group_by_node(fixed, node_of_group, nodes)
    ranks = cluster.num_ranks // nodes
    held, replica_count = tensors.replicate(rows, cluster.num_slots // nodes, ranks)
    item = (rows // replica_count).gather(1, held)
    rank, place = tensors.pack(item, ranks, settings, seed, KEY_SHIFT, kernel)
    held = tensors.slots_of(held, rank, place, cluster.slots_per_rank)
    together = held.reshape(len(held), ranks, -1).sort(dim=2).values
    duplicates = (together[:, :, 1:] == together[:, :, :-1]).any()
    _insist(right)
    if bool(duplicates):
        on_host = held.int().cpu().numpy()
        separate_duplicates(on_host, ranks, rows.cpu().numpy())
        (held,) = like(weight, on_host)
        held = held.long()
    if expert is not None:
        held = expert.gather(1, held)
    physical_to_logical = held.reshape(layers, -1)
    return physical_to_logical, *tensors.maps(physical_to_logical, experts)


def _insist(right: Any) -> None:
    """Wait for the device, and refuse the weights if they were wrong."""
    if not bool(right):
        raise InvalidInputError(
            "weight holds a NaN, an infinity or a negative number; loads must be finite and not negative."
        )
