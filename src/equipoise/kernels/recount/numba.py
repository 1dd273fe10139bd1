"""What each rank carries and what is wrong with the slots, native: every plan is recounted before it is returned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import frozen, internal, native
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
    here = np.empty((num_nodes, num_groups), np.int64)
    for layer in range(len(table)):
        for e in range(experts):
            replicas[e], last_rank[e] = 0, -1
        flaw = 0
        for s in range(table.shape[1]):
            e = table[layer, s]
            if 0 <= e < experts:
                replicas[e] += 1
            else:
                flaw |= EMPTY
        for e in range(experts):
            each[e] = load[layer, e] / max(replicas[e], 1)
            if replicas[e] == 0:
                flaw |= MISSING
        for g in range(ranks):
            total = 0.0
            for s in range(g * slots, (g + 1) * slots):
                e = table[layer, s]
                if 0 <= e < experts:
                    total += each[e]
                    if last_rank[e] == g:
                        flaw |= DOUBLED
                    last_rank[e] = g
            rank_load[layer, g] = total
        if num_groups > 1:
            flaw |= _look_at_groups(table, layer, experts // num_groups, here)
        flaws[layer] = flaw


@internal
def _look_at_groups(table, layer, size, here):
    """Return the flaws of one layer's groups, of ``size`` experts; ``here`` int64 [nodes, groups] is work space."""
    num_nodes, num_groups = here.shape
    per_node = table.shape[1] // num_nodes
    flaw = first = 0
    for node in range(num_nodes):
        for group in range(num_groups):
            here[node, group] = 0
        groups = 0
        for s in range(node * per_node, (node + 1) * per_node):
            e = table[layer, s]
            if 0 <= e < size * num_groups and here[node, e // size] == 0:
                here[node, e // size] = 1
                groups += 1
        if node == 0:
            first = groups
        if groups != first:
            flaw |= UNEVEN
    for group in range(num_groups):
        nodes = 0
        for node in range(num_nodes):
            nodes += here[node, group]
        if nodes > 1:
            flaw |= TORN
    return flaw
