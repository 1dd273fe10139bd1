"""Swaps on the expected square of rank loads, in plain Python: every swap is tried, and all loads are added anew."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from equipoise.robust.numba import MOST_SWEEPS, WORTH

__all__ = ["objective_of", "swap"]


def swap(rows: NDArray[np.int32], held: NDArray[np.int32], node: NDArray[np.int32]) -> NDArray[np.int64]:
    """Swap replicas of ``held`` in place; return the objective. See the folder's contract."""
    return np.array([swap_layer(*layer, node) for layer in zip(rows, held, strict=True)], dtype=np.int64)


def swap_layer(rows: NDArray[np.int32], held: NDArray[np.int32], node: NDArray[np.int32]) -> int:
    """Swap replicas of ``held`` [ranks, slots] in place; return the objective."""
    objective = objective_of(rows, held)
    for _ in range(MOST_SWEEPS):
        before = objective
        for g, h in combinations(range(len(held)), 2):
            if node[g] == node[h]:
                objective = swap_best(rows, held, g, h, objective)
        if before - objective < before // WORTH + 1:
            break
    return objective


def swap_best(rows: NDArray[np.int32], held: NDArray[np.int32], g: int, h: int, objective: int) -> int:
    """Make the best swap of ranks g and h, if one gains; return the objective."""
    ways = []
    for i, a in enumerate(held[g].tolist()):
        for j, b in enumerate(held[h].tolist()):
            if a not in held[h] and b not in held[g]:
                tried = held.copy()
                tried[g, i], tried[h, j] = b, a
                ways.append((objective_of(rows, tried), i, j))
    best, i, j = min(ways, default=(objective, 0, 0))
    if best >= objective:
        return objective
    held[g, i], held[h, j] = held[h, j], held[g, i]
    return best


def objective_of(rows: NDArray[np.int32], held: NDArray[np.int32]) -> int:
    """Return the sum over ranks and rows of squared loads; a slot below 0 is empty."""
    replicas = np.bincount(held[held >= 0], minlength=rows.shape[1]).tolist()
    table = rows.tolist()
    each = [[load // max(count, 1) for load, count in zip(row, replicas, strict=True)] for row in table]
    return sum(sum(row[e] for e in rank if e >= 0) ** 2 for rank in held.tolist() for row in each)
