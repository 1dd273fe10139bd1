"""Replicas that share a rank with another of their expert, moved apart in plain Python: the specification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["separate"]


def separate(held: NDArray[np.int32], weight: NDArray[np.int64]) -> None:
    """Exchange replicas in ``held`` [ranks, slots] of one row; see the folder's contract."""
    ranks, slots = held.shape
    replicas = np.bincount(held.ravel(), minlength=len(weight))
    each = (weight // np.maximum(replicas, 1)).tolist()
    for g in range(ranks):
        for s in range(slots):
            e = held[g, s]
            if (held[g] == e).sum() < 2 or (held == e).any(axis=1).all():
                continue
            load = [sum(each[f] for f in rank) for rank in held]
            ways = [
                (max(load[g] - each[e] + each[held[h, t]], load[h] - each[held[h, t]] + each[e]), h, t)
                for h in range(ranks)
                for t in range(slots)
                if e not in held[h] and held[h, t] not in held[g]
            ]
            if not ways:
                _deal(held, replicas, weight)
                return
            _, h, t = min(ways)
            held[g, s], held[h, t] = held[h, t], e


def _deal(held: NDArray[np.int32], replicas: NDArray[np.int64], weight: NDArray[np.int64]) -> None:
    """Deal all replicas round the ranks, the experts with the heaviest replicas first, ties to the lowest."""
    order = sorted(np.flatnonzero(replicas).tolist(), key=lambda e: (-int(weight[e]) / int(replicas[e]), e))
    held.T.flat[:] = np.repeat(order, replicas[order])
