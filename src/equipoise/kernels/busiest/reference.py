"""What the busiest rank carries, in plain Python, readable as the specification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["busiest"]


def busiest(physical_to_logical: NDArray[np.int32], load: NDArray[np.float64], num_ranks: int) -> NDArray[np.float64]:
    """Return the tokens of the busiest rank of each layer; see the folder's contract."""
    tokens = np.full(len(physical_to_logical), np.inf)
    for layer, row in enumerate(physical_to_logical.tolist()):
        ranks = [row[i : i + len(row) // num_ranks] for i in range(0, len(row), len(row) // num_ranks)]
        if set(row) == set(range(load.shape[1])) and all(len(set(rank)) == len(rank) for rank in ranks):
            tokens[layer] = max(sum(load[layer, e] / row.count(e) for e in rank) for rank in ranks)
    return tokens
