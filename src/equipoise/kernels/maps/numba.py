"""The maps of a placement, native: one walk over the slots each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import frozen, native

__all__ = ["count_duplicates", "invert"]

Ints = NDArray[np.int32]


def invert(physical_to_logical: Ints, num_experts: int) -> tuple[Ints, Ints]:
    """Return the slots of each expert and how many there are; see the folder's contract."""
    table = frozen(physical_to_logical, np.int32)
    replica_count = np.zeros((len(table), num_experts), np.int32)
    _count(table, replica_count)
    slots_of = np.full((*replica_count.shape, max(1, int(replica_count.max()))), -1, np.int32)
    _list(table, np.zeros(num_experts, np.int64), slots_of)
    return slots_of, replica_count


def count_duplicates(physical_to_logical: Ints, num_experts: int, num_ranks: int) -> NDArray[np.int64]:
    """Count the slots that repeat an expert of their rank; see the folder's contract."""
    table, found = frozen(physical_to_logical, np.int32), np.zeros(len(physical_to_logical), np.int64)
    _count_duplicates(table, table.shape[1] // num_ranks, np.empty(num_experts, np.int64), found)
    return found


@native
def _count(table, replica_count):
    for layer in range(len(table)):
        for e in table[layer]:
            if e >= 0:
                replica_count[layer, e] += 1


@native
def _list(table, listed, slots_of):
    layers, slots = table.shape
    for layer in range(layers):
        listed[:] = 0
        for s in range(slots):
            e = table[layer, s]
            if e >= 0:
                slots_of[layer, e, listed[e]] = s
                listed[e] += 1


@native
def _count_duplicates(table, slots_per_rank, last_rank, found):
    layers, slots = table.shape
    for layer in range(layers):
        last_rank[:] = -1
        for first in range(0, slots, slots_per_rank):
            for e in table[layer, first : first + slots_per_rank]:
                if e >= 0:
                    found[layer] += np.int64(last_rank[e] == first)
                    last_rank[e] = first
