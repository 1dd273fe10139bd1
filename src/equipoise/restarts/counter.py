"""Randomness without state: a uniform number for each (seed, layer, restart, item).

The generator is a 32-bit mixing function applied to counters, so any implementation can make any
number of the stream by itself, in any order. ``layer`` is a digest of the layer's own weights, not
its position: a layer gets the same plan wherever it stands and whatever is planned beside it.

The mixing function is the two-round multiply-xorshift with low bias found by Chris Wellons
("Prospecting for Hash Functions", 2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ITEM_STEP", "RESTART_STEP", "mix", "row_key", "uniforms"]

MASK = 0xFFFFFFFF
MIX_1, MIX_2 = 0x7FEB352D, 0x846CA68B
RESTART_STEP, ITEM_STEP = 0x9E3779B9, 0x85EBCA6B  # odd, so that distinct counters stay distinct

Words = NDArray[np.uint64]


def mix(value: Words) -> Words:
    """Scramble 32-bit words, held in uint64 so that numpy never overflows."""
    value = value ^ (value >> np.uint64(16))
    value = (value * np.uint64(MIX_1)) & np.uint64(MASK)
    value = value ^ (value >> np.uint64(15))
    value = (value * np.uint64(MIX_2)) & np.uint64(MASK)
    mixed: Words = value ^ (value >> np.uint64(16))
    return mixed


def row_key(weight: NDArray[np.int64], seed: int) -> Words:
    """Return one 32-bit word per row of ``weight`` [rows, items], from the seed and the row's weights."""
    low, high = seed & MASK, (seed >> 32) & MASK
    word = mix(mix(np.array([low], np.uint64)) ^ np.uint64(high))
    bits = weight.astype(np.uint64)
    place = mix(np.arange(weight.shape[1], dtype=np.uint64) * np.uint64(ITEM_STEP) & np.uint64(MASK))
    content = mix(mix((bits & np.uint64(MASK)) ^ place) ^ (bits >> np.uint64(32)))
    return mix((content.sum(axis=1) & np.uint64(MASK)) ^ word)  # a sum, so that a device may add in any order


def uniforms(key: Words, restarts: NDArray[np.int64], num_items: int) -> NDArray[np.float64]:
    """Return the uniforms in [0, 1) of the given restarts: float64, shape (rows, len(restarts), items).

    Each is a multiple of 2**-24, so float32 holds it exactly.
    """
    mask = np.uint64(MASK)
    restart = restarts.astype(np.uint64) * np.uint64(RESTART_STEP) & mask
    stream = mix((key[:, None] + restart[None, :]) & mask)
    item = np.arange(num_items, dtype=np.uint64) * np.uint64(ITEM_STEP) & mask
    words = mix((stream[:, :, None] + item) & mask)
    uniform: NDArray[np.float64] = (words >> np.uint64(8)).astype(np.float64) * 2.0**-24
    return uniform
