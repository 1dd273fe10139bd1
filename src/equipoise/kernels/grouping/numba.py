"""Groupings tried one by one, native: t* of a node is computed only where its mean does not decide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import frozen, native, spliced

__all__ = ["choose"]


def choose(
    load: NDArray[np.float64],
    sets: NDArray[np.int64],
    set_of_node: NDArray[np.int64],
    ranks_per_node: int,
    slots_per_node: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose a grouping for each layer; see the folder's contract."""
    chosen, bound = np.zeros(len(load), np.int64), np.empty(len(load))
    _choose(frozen(load, np.float64), sets, set_of_node, ranks_per_node, slots_per_node, chosen, bound)
    return chosen, bound


@native
def _choose(load, sets, set_of_node, ranks_per_node, slots_per_node, chosen, bound):  # type: ignore[no-untyped-def]
    layers, experts = load.shape
    groupings, nodes = set_of_node.shape
    size = experts // (sets.shape[1] * nodes)
    group_load, set_load = np.empty(experts // size), np.empty(len(sets))
    busiest, inside = np.empty(groupings), np.empty(experts // nodes)
    replicas = np.empty(experts // nodes, np.int64)
    for layer in range(layers):
        for group in range(len(group_load)):
            group_load[group] = load[layer, group * size : (group + 1) * size].sum()
        for k in range(len(sets)):
            set_load[k] = 0.0
            for group in sets[k]:
                set_load[k] += group_load[group]
        for k in range(groupings):
            busiest[k] = 0.0
            for one in set_of_node[k]:
                busiest[k] = max(busiest[k], set_load[one])
            busiest[k] /= ranks_per_node
        best = np.inf
        while True:
            k = int(np.argmin(busiest))
            if busiest[k] >= best:
                break
            promise = busiest[k]
            busiest[k] = np.inf
            for one in set_of_node[k]:
                for i in range(len(sets[one])):
                    group = sets[one, i]
                    for e in range(size):
                        inside[i * size + e] = load[layer, group * size + e]
                promise = max(promise, _largest_replica(inside, slots_per_node, promise, replicas))
                if promise >= best:
                    break
            if promise < best:
                best, chosen[layer] = promise, k
        bound[layer] = best


@spliced
def _largest_replica(load, num_slots, promise, replicas):  # type: ignore[no-untyped-def]
    """Return t* of one node, or 0 if it is no more than ``promise``, which one count of slots shows."""
    need = np.float64(len(load))
    for each in load:
        if each > promise:
            need += np.ceil(each / promise) - 1.0 if promise > 0 else np.inf
    if need <= num_slots:
        return 0.0
    replicas[:] = 1
    for _ in range(num_slots - len(load)):
        replicas[np.argmax(load / replicas)] += 1
    return (load / replicas).max()
