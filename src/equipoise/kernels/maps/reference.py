"""The maps of a placement, in plain Python, readable as the specification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["count_duplicates", "invert"]

Ints = NDArray[np.int32]


def invert(physical_to_logical: Ints, num_experts: int) -> tuple[Ints, Ints]:
    """Return the slots of each expert and how many there are; see the folder's contract."""
    rows = [[[s for s, held in enumerate(row) if held == e] for e in range(num_experts)] for row in physical_to_logical]
    width = max(1, *(len(slots) for row in rows for slots in row))
    padded = [[slots + [-1] * (width - len(slots)) for slots in row] for row in rows]
    return np.array(padded, np.int32), np.array([[len(slots) for slots in row] for row in rows], np.int32)


def count_duplicates(physical_to_logical: Ints, num_experts: int, num_ranks: int) -> NDArray[np.int64]:
    """Count the slots that repeat an expert of their rank; see the folder's contract."""
    ranks = physical_to_logical.reshape(len(physical_to_logical), num_ranks, -1).tolist()
    held = [[[e for e in rank if e >= 0] for rank in layer] for layer in ranks]
    return np.array([sum(len(rank) - len(set(rank)) for rank in layer) for layer in held], np.int64)
