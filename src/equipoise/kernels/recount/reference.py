"""What each rank carries and what is wrong with the slots, in plain Python, readable as the specification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.recount import DOUBLED, EMPTY, MISSING, TORN, UNEVEN

__all__ = ["recount"]


def recount(
    physical_to_logical: NDArray[np.int32], load: NDArray[np.float64], num_ranks: int, num_nodes: int, num_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what each rank carries and the flaws of each layer; see the folder's contract."""
    layers, experts = load.shape
    rank_load, flaws = np.zeros((layers, num_ranks)), np.zeros(layers, np.int64)
    for layer, row in enumerate(physical_to_logical.tolist()):
        ranks = [row[i : i + len(row) // num_ranks] for i in range(0, len(row), len(row) // num_ranks)]
        held = [[e for e in rank if 0 <= e < experts] for rank in ranks]
        replicas = [sum(rank.count(e) for rank in held) for e in range(experts)]
        for rank, those in enumerate(held):
            rank_load[layer, rank] = sum(load[layer, e] / replicas[e] for e in those)
        flaws[layer] += EMPTY * any(len(those) < len(rank) for those, rank in zip(held, ranks, strict=True))
        flaws[layer] += MISSING * (0 in replicas)
        flaws[layer] += DOUBLED * any(len(set(those)) < len(those) for those in held)
        if num_groups > 1:
            each = num_ranks // num_nodes
            nodes = [{e * num_groups // experts for those in held[i : i + each] for e in those}
                     for i in range(0, num_ranks, each)]  # fmt: skip
            flaws[layer] += TORN * (sum(len(groups) for groups in nodes) > len(set().union(*nodes)))
            flaws[layer] += UNEVEN * (len({len(groups) for groups in nodes}) > 1)
    return rank_load, flaws
