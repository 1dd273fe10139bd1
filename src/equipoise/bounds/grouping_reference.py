"""Groupings tried one by one, in plain Python, readable as the specification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose"]


def choose(
    load: NDArray[np.float64],
    sets: NDArray[np.int64],
    set_of_node: NDArray[np.int64],
    ranks_per_node: int,
    slots_per_node: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose a grouping for each layer; see the contract of ``equipoise.bounds.grouping``."""
    by_group = load.reshape(len(load), sets.size and int(sets.max()) + 1, -1).tolist()
    chosen, bound = np.zeros(len(load), np.int64), np.zeros(len(load))
    for layer, groups in enumerate(by_group):
        means, largest = [], []
        for those in sets.tolist():
            inside = [w for group in those for w in groups[group]]
            means.append(sum(inside) / ranks_per_node)
            largest.append(_largest_replica(inside, slots_per_node))
        promises = []
        for k, row in enumerate(set_of_node.tolist()):
            fullest = max(means[one] for one in row)
            promises.append((max(fullest, *(largest[one] for one in row)), fullest, k))
        bound[layer], _, chosen[layer] = min(promises)
    return chosen, bound


def _largest_replica(load: list[float], slots: int) -> float:
    """Return t*: spare slots go one by one to the expert with the largest replicas."""
    replicas = [1] * len(load)
    for _ in range(slots - len(load)):
        replicas[max(range(len(load)), key=lambda e: load[e] / replicas[e])] += 1
    return max(w / c for w, c in zip(load, replicas, strict=True))
