"""Two replicas of one expert on one rank: the second adds nothing, so move it elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.separate.numba import separate

__all__ = ["separate_duplicates"]


def separate_duplicates(physical_to_logical: NDArray[np.int32], num_ranks: int, fixed: NDArray[np.int64]) -> None:
    """Exchange replicas, in place, until no rank holds an expert twice that need not.

    Parameters
    ----------
    physical_to_logical : int32 array, shape (rows, num_slots)
        Every expert has a slot, every slot an expert.
    num_ranks : int
    fixed : int64 array, shape (rows, num_logical_experts)
        Integer loads. See ``equipoise.kernels.separate`` for which exchange is made.
    """
    for row in range(len(physical_to_logical)):
        separate(physical_to_logical[row].reshape(num_ranks, -1), fixed[row])
