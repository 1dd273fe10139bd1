"""Replica counts in plain Python, readable as the specification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["replicate"]


def replicate(weight: NDArray[np.int64], num_slots: int, most: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Give each spare slot to the expert with the largest replicas; see the folder's contract."""
    rows, experts = weight.shape
    physical_to_logical = np.empty((rows, num_slots), dtype=np.int32)
    replica_count = np.ones((rows, experts), dtype=np.int32)
    for row in range(rows):
        physical_to_logical[row, :experts] = np.arange(experts)
        for slot in range(experts, num_slots):
            open_to = [e for e in range(experts) if replica_count[row, e] < most]
            expert = max(open_to, key=lambda e: (float(weight[row, e]) / replica_count[row, e], -e))
            physical_to_logical[row, slot] = expert
            replica_count[row, expert] += 1
    return physical_to_logical, replica_count
