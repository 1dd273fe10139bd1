"""The plain greedy packing, native."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import internal, native

__all__ = ["pack"]

FULL = np.int64(2**63 - 1)


def pack(weight: NDArray[np.int64], num_packs: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pack ``weight`` [rows, items] into ``num_packs`` packs of equal size; see the folder's contract."""
    rows, items = weight.shape
    if items == num_packs:
        return np.tile(np.arange(items, dtype=np.int32), (rows, 1)), np.zeros((rows, items), np.int32)
    bits = items.bit_length()  # weight and item share an integer, so that one sort orders both
    by_weight = np.sort((~weight << bits) | np.arange(items), axis=1)
    pack_index, rank_in_pack = np.empty((rows, items), np.int32), np.empty((rows, items), np.int32)
    _pack(by_weight, bits, num_packs, pack_index, rank_in_pack)
    return pack_index, rank_in_pack


@native
def _pack(by_weight, bits, num_packs, pack_index, rank_in_pack):
    rows, items = by_weight.shape
    pack_bits = 0
    while (1 << pack_bits) < num_packs:
        pack_bits += 1
    heap, size = np.empty(num_packs, np.int64), np.empty(num_packs, np.int64)  # load and pack share an integer
    for row in range(rows):
        for p in range(num_packs):
            heap[p], size[p] = p, 0
        for i in range(items):
            item = by_weight[row, i] & ((1 << bits) - 1)
            p = heap[0] & ((1 << pack_bits) - 1)
            pack_index[row, item], rank_in_pack[row, item] = p, size[p]
            size[p] += 1
            heap[0] += ~(by_weight[row, i] >> bits) << pack_bits
            if size[p] == items // num_packs:
                heap[0] = FULL
            _sift(heap)


@internal
def _sift(heap):
    """Let the first key sink until no child is lower."""
    key, at, child = heap[0], 0, 1
    while child < len(heap):
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at, child = child, 2 * child + 1
    heap[at] = key
