"""What each rank carries and what is wrong with the slots, native: every plan is recounted before it is returned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import frozen, native, spliced
from equipoise.kernels.recount import DOUBLED, EMPTY, MISSING, TORN, UNEVEN

__all__ = ["recount"]


def recount(
    physical_to_logical: NDArray[np.int32], load: NDArray[np.float64], num_ranks: int, num_nodes: int, num_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what each rank carries and the flaws of each layer; see the folder's contract."""
    rank_load, flaws = np.empty((len(load), num_ranks)), np.empty(len(load), np.int64)
    _recount(frozen(physical_to_logical, np.int32), frozen(load, np.float64), num_nodes, num_groups, rank_load, flaws)
    return rank_load, flaws


@native
def _recount(table, load, num_nodes, num_groups, rank_load, flaws):
    experts, ranks = load.shape[1], rank_load.shape[1]
    slots = table.shape[1] // ranks
    replicas, last_rank, each = np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(experts)
    group_of, here = np.arange(experts) // (experts // num_groups), np.empty((num_nodes, num_groups), np.bool_)
    for layer in range(len(table)):
        replicas[:] = 0
        flaw = 0
        for e in table[layer]:
            if 0 <= e < experts:
                replicas[e] += 1
            else:
                flaw |= EMPTY
        for e in range(experts):
            each[e] = load[layer, e] / max(replicas[e], 1)
        if replicas.min() == 0:
            flaw |= MISSING
        last_rank[:] = -1
        for g in range(ranks):
            total, doubled = 0.0, False
            for e in table[layer, g * slots : (g + 1) * slots]:
                if 0 <= e < experts:
                    total += each[e]
                    doubled |= last_rank[e] == g
                    last_rank[e] = g
            rank_load[layer, g] = total
            if doubled:
                flaw |= DOUBLED
        if num_groups > 1:
            flaw |= _look_at_groups(table[layer], group_of, here)
        flaws[layer] = flaw


@spliced
def _look_at_groups(slots, group_of, here):
    """Return the flaws of one layer's groups; ``here`` bool [nodes, groups] is work space."""
    num_nodes, num_groups = here.shape
    per_node, experts = len(slots) // num_nodes, len(group_of)
    here[:] = False
    for node in range(num_nodes):
        for e in slots[node * per_node : (node + 1) * per_node]:
            if 0 <= e < experts:
                here[node, group_of[e]] = True
    flaw = 0
    for group in range(num_groups):
        if here[:, group].sum() > 1:
            flaw |= TORN
    for node in range(1, num_nodes):
        if here[node].sum() != here[0].sum():
            flaw |= UNEVEN
    return flaw
