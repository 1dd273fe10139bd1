"""The plain greedy packing, native."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import native

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
def _pack(by_weight, bits, num_packs, pack_index, rank_in_pack):  # type: ignore[no-untyped-def]
    rows, items = by_weight.shape
    load, size = np.empty(num_packs, np.int64), np.empty(num_packs, np.int64)
    for row in range(rows):
        load[:] = 0
        size[:] = 0
        for i in range(items):
            item = by_weight[row, i] & ((1 << bits) - 1)
            lightest = 0
            for p in range(1, num_packs):
                if load[p] < load[lightest]:
                    lightest = p
            pack_index[row, item], rank_in_pack[row, item] = lightest, size[lightest]
            size[lightest] += 1
            load[lightest] += ~(by_weight[row, i] >> bits)
            if size[lightest] == items // num_packs:
                load[lightest] = FULL
