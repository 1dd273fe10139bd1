"""Groups to nodes: a hierarchical problem becomes one small global problem for each layer and node."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.problem import PlacementProblem

__all__ = ["NodeRows", "all_groupings", "best_groupings", "node_sets", "split_by_node"]

MOST_GROUPINGS = 20_000  # tried one by one; 105 for 8 groups on 4 nodes


@lru_cache(maxsize=16)
def all_groupings(num_groups: int, num_nodes: int) -> NDArray[np.int32] | None:
    """Return every way to put equally many groups on each node, up to the nodes' names, or None if too many.

    int32, shape (groupings, groups): the node of each group. Nodes are numbered by their lowest group.

    >>> all_groupings(4, 2).tolist()
    [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]]
    """
    size = num_groups // num_nodes
    if math.factorial(num_groups) // (math.factorial(size) ** num_nodes * math.factorial(num_nodes)) > MOST_GROUPINGS:
        return None

    def rest(left: tuple[int, ...], node: int) -> Iterator[dict[int, int]]:
        if not left:
            yield {}
            return
        for others in combinations(left[1:], size - 1):
            mine = (left[0], *others)
            for deeper in rest(tuple(group for group in left if group not in mine), node + 1):
                yield dict.fromkeys(mine, node) | deeper

    table = [[grouping[group] for group in range(num_groups)] for grouping in rest(tuple(range(num_groups)), 0)]
    return np.array(table, dtype=np.int32)


@lru_cache(maxsize=16)
def node_sets(num_groups: int, num_nodes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sets of groups that nodes hold in ``all_groupings``, which are far fewer than the groupings.

    int64, shape (sets, groups a node), and int64, shape (groupings, nodes): the set on each node.

    >>> sets, set_of_node = node_sets(4, 2)
    >>> sets[set_of_node[0]].tolist()
    [[0, 1], [2, 3]]
    """
    table = all_groupings(num_groups, num_nodes)
    assert table is not None
    groups = np.argsort(table, axis=1, kind="stable").reshape(-1, num_groups // num_nodes)
    sets, which = np.unique(groups, axis=0, return_inverse=True)
    return sets, which.reshape(len(table), num_nodes)


def best_groupings(
    problem: PlacementProblem, load: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float64]] | None:
    """Return the best grouping of each layer and what no grouping undercuts, or None if there are too many to try.

    ``load`` is the problem's, or the integers that stand for it in planning.

    Returns
    -------
    node_of_group : int32 array, shape (num_layers, num_expert_groups)
    bound : float64 array, shape (num_layers,)
        What the busiest rank carries at least, in the unit of ``load``; see ``equipoise.kernels.grouping``.
    """
    from equipoise.kernels.grouping.numba import choose

    assert problem.num_expert_groups is not None
    cluster = problem.cluster
    table = all_groupings(problem.num_expert_groups, cluster.num_nodes)
    if table is None:
        return None
    slots_per_node = cluster.num_slots // cluster.num_nodes
    sets, set_of_node = node_sets(problem.num_expert_groups, cluster.num_nodes)
    chosen, bound = choose(load, sets, set_of_node, cluster.ranks_per_node, slots_per_node)
    return table[chosen], bound


@dataclass(frozen=True, eq=False)
class NodeRows:
    """One row for each layer and node, each to be planned by itself.

    Attributes
    ----------
    weight : int64 array, shape (num_layers * num_nodes, experts per node)
    expert : int32 array, same shape
        The logical expert behind each column, ascending; row ``layer * num_nodes + node``.
    num_ranks, num_slots : int
        Of one node.
    """

    weight: NDArray[np.int64]
    expert: NDArray[np.int32]
    num_ranks: int
    num_slots: int

    def name(self, columns: NDArray[np.int32], rows: Any = slice(None)) -> NDArray[np.int32]:
        """Return the logical experts that stand in ``columns`` [rows, slots] of those rows."""
        return np.take_along_axis(self.expert[rows], columns.astype(np.int64), axis=1)


def split_by_node(
    problem: PlacementProblem, fixed: NDArray[np.int64], node_of_group: NDArray[np.int32] | None
) -> NodeRows:
    """Return the rows of ``problem``, one for each layer and node; one node if ``node_of_group`` is None.

    ``node_of_group`` int [layers, groups] puts equally many groups on each node. Within a node, experts keep
    their order.
    """
    layers, experts = fixed.shape
    cluster = problem.cluster
    if node_of_group is None:
        same = np.broadcast_to(np.arange(experts, dtype=np.int32), fixed.shape)
        return NodeRows(fixed, same, cluster.num_ranks, cluster.num_slots)
    nodes, num_groups = cluster.num_nodes, node_of_group.shape[1]
    groups = np.argsort(node_of_group, axis=1, kind="stable")  # by node, then by number
    by_group = np.arange(experts, dtype=np.int32).reshape(num_groups, -1)
    expert = by_group[groups].reshape(layers * nodes, -1)
    weight = fixed.reshape(layers, num_groups, -1)[np.arange(layers)[:, None], groups].reshape(layers * nodes, -1)
    return NodeRows(weight, expert, cluster.ranks_per_node, cluster.num_slots // nodes)
