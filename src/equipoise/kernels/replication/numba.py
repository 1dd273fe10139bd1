"""Replica counts, native: a heap of experts by replica load, so a slot costs the logarithm of the experts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import internal, native

__all__ = ["replicate"]


def replicate(weight: NDArray[np.int64], num_slots: int, most: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Give each spare slot to the expert with the largest replicas; see the folder's contract."""
    rows, experts = weight.shape
    physical_to_logical = np.empty((rows, num_slots), dtype=np.int32)
    replica_count = np.ones((rows, experts), dtype=np.int32)
    _replicate(weight, most, physical_to_logical, replica_count)
    return physical_to_logical, replica_count


@native
def _replicate(weight, most, physical_to_logical, replica_count):
    rows, experts = weight.shape
    num_slots = physical_to_logical.shape[1]
    heap, load = np.empty(experts, dtype=np.int64), np.empty(experts, dtype=np.float64)
    for row in range(rows):
        for e in range(experts):
            physical_to_logical[row, e] = e
            load[e] = np.float64(weight[row, e])
            heap[e] = e
        for at in range(experts // 2 - 1, -1, -1):
            _sift(heap, load, at)
        for slot in range(experts, num_slots):
            expert = heap[0]
            physical_to_logical[row, slot] = expert
            replica_count[row, expert] += 1
            load[expert] = np.float64(weight[row, expert]) / replica_count[row, expert]
            if replica_count[row, expert] == most:
                load[expert] = -1.0
            _sift(heap, load, np.int64(0))


@internal
def _sift(heap, load, at):
    """Let the expert at ``at`` sink until no child is larger, or equal with a lower id."""
    expert = heap[at]
    while True:
        child = 2 * at + 1
        if child >= len(heap):
            break
        if child + 1 < len(heap) and (
            load[heap[child + 1]] > load[heap[child]]
            or (load[heap[child + 1]] == load[heap[child]] and heap[child + 1] < heap[child])
        ):
            child += 1
        other = heap[child]
        if load[other] < load[expert] or (load[other] == load[expert] and other > expert):
            break
        heap[at] = other
        at = child
    heap[at] = expert
