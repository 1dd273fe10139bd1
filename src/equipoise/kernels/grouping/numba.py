"""Groupings tried one by one, native: t* of a node is computed only where its mean does not decide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import native

__all__ = ["choose"]


def choose(
    load: NDArray[np.float64], table: NDArray[np.int32], num_nodes: int, ranks_per_node: int, slots_per_node: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose a grouping for each layer; see the folder's contract."""
    chosen, bound = np.zeros(len(load), np.int64), np.empty(len(load))
    _choose(load.copy(), table, num_nodes, ranks_per_node, slots_per_node, chosen, bound)
    return chosen, bound


@native
def _choose(load, table, num_nodes, ranks_per_node, slots_per_node, chosen, bound):  # type: ignore[no-untyped-def]
    layers, experts = load.shape
    groupings, groups = table.shape
    size = experts // groups
    group_load, means = np.empty(groups), np.empty(groupings)
    node_load = np.empty(num_nodes)
    inside = np.empty(experts // num_nodes)
    replicas = np.empty(experts // num_nodes, np.int64)
    for layer in range(layers):
        for group in range(groups):
            group_load[group] = load[layer, group * size : (group + 1) * size].sum()
        for k in range(groupings):
            node_load[:] = 0.0
            for group in range(groups):
                node_load[table[k, group]] += group_load[group]
            means[k] = node_load.max() / ranks_per_node
        best = np.inf
        while True:
            k = int(np.argmin(means))
            if means[k] >= best:
                break
            promise = means[k]
            for node in range(num_nodes):
                n = 0
                for group in range(groups):
                    if table[k, group] == node:
                        inside[n : n + size] = load[layer, group * size : (group + 1) * size]
                        n += size
                promise = max(promise, _largest_replica(inside, slots_per_node, promise, replicas))
                if promise >= best:
                    break
            means[k] = np.inf
            if promise < best:
                best = promise
                chosen[layer] = k
        bound[layer] = best


@native
def _largest_replica(load, num_slots, promise, replicas):  # type: ignore[no-untyped-def]
    """Return t* of one node, or 0 if it is below ``promise``, which one count of slots shows."""
    need = 0
    for e in range(len(load)):
        replicas[e] = max(1, np.int64(np.ceil(load[e] / promise))) if promise > 0 else 1
        need += replicas[e]
    if need <= num_slots:
        return 0.0
    replicas[:] = 1
    for _ in range(num_slots - len(load)):
        replicas[np.argmax(load / replicas)] += 1
    return (load / replicas).max()
