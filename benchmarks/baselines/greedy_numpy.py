"""The published planner (DeepSeek EPLB, as engines run it on the CPU): replicate, then pack greedily.

Spare slots go one by one to the expert whose replicas carry most; replicas are sorted by load and
each goes to the lightest rank with room. With node-limited routing, groups are packed to nodes
first and the rest happens inside each node.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["balanced_packing", "rebalance_experts", "replicate_experts"]

Ints = NDArray[np.int64]


def balanced_packing(weight: NDArray[np.float64], num_packs: int) -> tuple[Ints, Ints]:
    """Greedily pack ``weight`` [rows, items]; returns the pack of each item and its rank in the pack."""
    rows, items = weight.shape
    room = items // num_packs
    if room == 1:
        return np.tile(np.arange(items), (rows, 1)), np.zeros((rows, items), dtype=np.int64)
    pack_index = np.empty((rows, items), dtype=np.int64)
    rank_in_pack = np.empty((rows, items), dtype=np.int64)
    order = np.argsort(-weight, axis=1, kind="stable")
    for row in range(rows):
        load = np.zeros(num_packs)
        size = [0] * num_packs
        total = [0.0] * num_packs
        of_item = weight[row].tolist()
        for item in order[row].tolist():
            lightest = int(load.argmin())
            pack_index[row, item] = lightest
            rank_in_pack[row, item] = size[lightest]
            size[lightest] += 1
            total[lightest] += of_item[item]
            load[lightest] = total[lightest] if size[lightest] < room else np.inf
    return pack_index, rank_in_pack


def replicate_experts(weight: NDArray[np.float64], num_physical: int) -> tuple[Ints, Ints, Ints]:
    """Give each spare slot to the largest load per replica; returns phy2log, replica number and counts."""
    rows, experts = weight.shape
    row = np.arange(rows)
    phy2log = np.tile(np.arange(num_physical), (rows, 1))
    replica = np.zeros((rows, num_physical), dtype=np.int64)
    count = np.ones((rows, experts), dtype=np.int64)
    for slot in range(experts, num_physical):
        hottest = (weight / count).argmax(axis=1)
        phy2log[:, slot] = hottest
        replica[:, slot] = count[row, hottest]
        count[row, hottest] += 1
    return phy2log, replica, count


def rebalance_experts(
    weight: NDArray[np.float64], num_replicas: int, num_groups: int, num_nodes: int, num_ranks: int
) -> tuple[Ints, Ints, Ints]:
    """Return phy2log [layers, replicas], log2phy [layers, experts, most replicas] (-1: none) and counts."""
    layers, experts = weight.shape
    if num_groups % num_nodes:
        num_groups = num_nodes = 1
    per_group, per_node = experts // num_groups, experts // num_nodes
    row = np.arange(layers)[:, None]

    # Experts in the order of their nodes: position on node -> expert.
    group_load = weight.reshape(layers, num_groups, per_group).sum(axis=2)
    node, place = balanced_packing(group_load, num_nodes)
    first = (node * (num_groups // num_nodes) + place) * per_group
    expert_at = np.empty((layers, experts), dtype=np.int64)
    expert_at[row, (first[:, :, None] + np.arange(per_group)).reshape(layers, experts)] = np.arange(experts)

    # Replicas within each node, then ranks within each node.
    on_node = np.take_along_axis(weight, expert_at, axis=1).reshape(layers * num_nodes, per_node)
    phy2mid, replica, count = replicate_experts(on_node, num_replicas // num_nodes)
    replica_load = np.take_along_axis(on_node / count, phy2mid, axis=1)
    rank, place = balanced_packing(replica_load, num_ranks // num_nodes)
    slot = rank * (num_replicas // num_ranks) + place
    rows = np.arange(layers * num_nodes)[:, None]
    mid_of_slot, replica_of_slot = np.empty_like(slot), np.empty_like(slot)
    mid_of_slot[rows, slot] = phy2mid
    replica_of_slot[rows, slot] = replica

    node_start = (np.arange(num_nodes) * per_node)[None, :, None]
    position = (mid_of_slot.reshape(layers, num_nodes, -1) + node_start).reshape(layers, num_replicas)
    phy2log = np.take_along_axis(expert_at, position, axis=1)
    logcnt = np.empty((layers, experts), dtype=np.int64)
    logcnt[row, expert_at] = count.reshape(layers, experts)
    log2phy = np.full((layers, experts, logcnt.max()), -1, dtype=np.int64)
    log2phy[row, phy2log, replica_of_slot.reshape(layers, num_replicas)] = np.arange(num_replicas)
    return phy2log, log2phy, logcnt
