"""Loads as whole numbers, so that every implementation adds them to the same bits.

Sums of floats depend on their order, and order depends on threads, devices and libraries. All
planning therefore happens on integers: each layer is scaled so that its hottest expert is 8.9e11
(less for very large layers) and rounded to steps of 7e-11 of that. Sums of such numbers are exact in int64 and
in float64 alike. A load multiplied by a constant becomes the same integers, unless rounding of float64 carries
an expert over the middle between two steps, which happens to about five in a million experts. Certificates and metrics
are always computed from the load itself.

The hottest expert becomes a number that many others divide: its replicas, and loads that are a simple fraction of it,
are whole, so that what is equal in truth is equal here too: ties are real ties.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fixed_point_steps", "replica_weight", "to_fixed_point"]

LARGEST = 2**12 * 3**3 * 5**2 * 7 * 11 * 13 * 17 * 19
NUM_BITS = LARGEST.bit_length()
STEP_BITS = 6  # what float64 loses when a load is scaled is a hundred thousandth of such a step


def fixed_point_steps(num_items: int, num_packs: int) -> tuple[int, int]:
    """Return how many steps the largest item becomes, and how many bits a step is shifted by.

    Together ``LARGEST``, divided by a power of two for very large layers.

    The sum of a row stays below 2**52, which float64 holds exactly, and leaves room beside it for a pack
    number in an int64.
    """
    bits = min(NUM_BITS, 52 - num_items.bit_length(), 62 - num_items.bit_length() - num_packs.bit_length())
    shift = max(STEP_BITS - (NUM_BITS - bits), 0)
    return (LARGEST >> NUM_BITS - bits) >> shift, shift


def to_fixed_point(load: NDArray[np.float64], num_packs: int = 1) -> NDArray[np.int64]:
    """Return each row of ``load`` scaled to integers with the largest at ``LARGEST``; zero rows stay zero.

    >>> to_fixed_point(np.array([[3.0, 1.0], [0.0, 0.0]])).tolist() == [[LARGEST, LARGEST // 3], [0, 0]]
    True
    """
    largest = load.max(axis=-1, keepdims=True)
    share = load / np.where(largest > 0, largest, 1.0)
    steps, shift = fixed_point_steps(load.shape[-1], num_packs)
    share *= float(steps)
    fixed: NDArray[np.int64] = np.rint(share, out=share).astype(np.int64)
    fixed <<= shift
    return fixed


def replica_weight(
    fixed: NDArray[np.int64], replica_count: NDArray[np.int32], physical_to_logical: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return the integer load of each physical expert: its expert's, divided by the replica count and rounded down."""
    return np.take_along_axis(fixed // replica_count, physical_to_logical.astype(np.int64), axis=-1)
