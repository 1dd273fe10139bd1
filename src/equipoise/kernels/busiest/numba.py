"""What the busiest rank carries, native: an engine waits for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import native

__all__ = ["busiest"]


def busiest(physical_to_logical: NDArray[np.int32], load: NDArray[np.float64], num_ranks: int) -> NDArray[np.float64]:
    """Return the tokens of the busiest rank of each layer; see the folder's contract."""
    # Copies, because the native code would be compiled once more for read-only arrays.
    table, load = np.array(physical_to_logical, dtype=np.int32, order="C"), np.array(load, order="C")
    tokens = np.empty(len(table))
    _busiest(table, load, num_ranks, tokens)
    return tokens


@native
def _busiest(table, load, num_ranks, tokens):  # type: ignore[no-untyped-def]
    layers, slots = table.shape
    experts = load.shape[1]
    slots_per_rank = slots // num_ranks
    replicas, on_rank = np.empty(experts, dtype=np.int64), np.empty(experts, dtype=np.int64)
    for layer in range(layers):
        replicas[:] = 0
        on_rank[:] = -1
        sound = True
        for s in range(slots):
            e = table[layer, s]
            if e < 0 or e >= experts or on_rank[e] == s // slots_per_rank:
                sound = False
                break
            on_rank[e] = s // slots_per_rank
            replicas[e] += 1
        tokens[layer] = np.inf
        if not sound or replicas.min() == 0:
            continue
        largest = 0.0
        for first in range(0, slots, slots_per_rank):
            total = 0.0
            for s in range(first, first + slots_per_rank):
                total += load[layer, table[layer, s]] / replicas[table[layer, s]]
            largest = max(largest, total)
        tokens[layer] = largest
