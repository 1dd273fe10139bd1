"""What surrounds the packing kernel, on tensors: for weights that live on a device and should not leave it.

Every function returns, bit for bit, what its counterpart on numpy arrays returns: ``to_fixed_point`` that of
``equipoise.fixed_point``, ``replicate`` that of ``equipoise.kernels.replication``, ``pack`` that of
``equipoise.restarts.pack_items``. None waits for the device.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from equipoise.restarts import counter_torch
from equipoise.restarts.settings import Settings

__all__ = ["group_by_node", "maps", "pack", "replicate", "slots_of", "to_fixed_point"]


def to_fixed_point(load: Tensor, steps: int, shift: int) -> tuple[Tensor, Tensor]:
    """Return integers, the largest of each row ``steps`` shifted, and whether all loads were finite and not negative.

    The answer is a tensor, to be read when something has to wait anyway; wrong loads count as zero until then.
    """
    load = load.to(torch.float64)
    right = torch.isfinite(load) & (load >= 0)
    load = torch.where(right, load, 0.0)
    largest = load.amax(-1, keepdim=True)
    share = torch.where(largest > 0, load / torch.where(largest > 0, largest, 1.0), 0.0)
    return torch.round(share * float(steps)).long() << shift, right.all()


def replicate(weight: Tensor, num_slots: int, most: int) -> tuple[Tensor, Tensor]:
    """Give each spare slot to the expert with the largest replicas; ties go to the lowest, as ``argmax`` promises."""
    rows, experts = weight.shape
    first = torch.arange(experts, device=weight.device).expand(rows, -1)
    given = torch.empty((rows, num_slots - experts), dtype=torch.int64, device=weight.device)
    replica_count = torch.ones_like(weight)
    weight = weight.double()
    for slot in range(num_slots - experts):
        each = torch.where(replica_count < most, weight / replica_count, -1.0)
        given[:, slot : slot + 1] = each.argmax(1, keepdim=True)
        replica_count.scatter_add_(1, given[:, slot : slot + 1], torch.ones_like(given[:, :1]))
    return torch.cat([first, given], dim=1), replica_count


def pack(
    weight: Tensor, num_packs: int, settings: Settings, seed: int, key_shift: int, kernel: ModuleType
) -> tuple[Tensor, Tensor]:
    """Return the int64 pack of each item and its place there, by the packing kernel given."""
    rows, items = weight.shape
    if items == num_packs:
        return torch.arange(items, device=weight.device).repeat(rows, 1), torch.zeros_like(weight)
    key = counter_torch.row_key(weight >> key_shift, seed)
    pack_index, rank_in_pack = kernel.pack(weight, num_packs, settings, key)
    return pack_index.long(), rank_in_pack.long()


def group_by_node(weight: Tensor, node_of_group: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Return the weights and the experts of each (layer, node) row, experts of a node in order."""
    layers, experts = weight.shape
    size = experts // node_of_group.shape[1]
    groups = torch.sort(node_of_group, dim=1, stable=True).indices
    expert = (groups[:, :, None] * size + torch.arange(size, device=weight.device)).reshape(layers, experts)
    return weight.gather(1, expert).reshape(layers * num_nodes, -1), expert.reshape(layers * num_nodes, -1)


def slots_of(physical_to_logical: Tensor, rank: Tensor, place: Tensor, slots_per_rank: int) -> Tensor:
    """Return the expert in each slot, where item i of a row goes to ``place`` on ``rank``."""
    return torch.empty_like(physical_to_logical).scatter_(1, rank * slots_per_rank + place, physical_to_logical)


def maps(physical_to_logical: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    """Return the slots of each expert, ascending and padded with -1, and the replica counts.

    Waits for the device once: the width of the first depends on the counts.
    """
    layers, slots = physical_to_logical.shape
    device = physical_to_logical.device
    replica_count = torch.zeros((layers, num_experts), dtype=torch.int64, device=device)
    replica_count.scatter_add_(1, physical_to_logical, torch.ones_like(physical_to_logical))
    by_expert = torch.sort(physical_to_logical, dim=1, stable=True)
    first = replica_count.cumsum(1) - replica_count
    nth = torch.arange(slots, device=device) - first.gather(1, by_expert.values)
    width = int(replica_count.amax())
    logical_to_physical = torch.full((layers, num_experts * width), -1, dtype=torch.int64, device=device)
    logical_to_physical.scatter_(1, by_expert.values * width + nth, by_expert.indices)
    return logical_to_physical.reshape(layers, num_experts, width), replica_count
