"""Groups to nodes: a hierarchical problem becomes one small global problem for each layer and node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.problem import PlacementProblem

__all__ = ["NodeRows", "split_by_node"]


@dataclass(frozen=True, eq=False)
class NodeRows:
    """One row for each layer and node, each to be planned by itself.

    Attributes
    ----------
    weight : int64 array, shape (num_layers * num_nodes, experts per node)
    expert : int32 array, same shape
        The logical expert behind each column; row ``layer * num_nodes + node``.
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
    problem: PlacementProblem,
    fixed: NDArray[np.int64],
    node_of_group: NDArray[np.int32] | None,
    place_on_node: NDArray[np.int32] | None = None,
) -> NodeRows:
    """Return the rows of ``problem``, one for each layer and node; one node if ``node_of_group`` is None.

    ``node_of_group`` int [layers, groups] puts equally many groups on each node. Within a node, groups keep
    their order, or stand as ``place_on_node`` int [layers, groups] says.
    """
    layers, experts = fixed.shape
    cluster = problem.cluster
    if node_of_group is None:
        same = np.broadcast_to(np.arange(experts, dtype=np.int32), fixed.shape)
        return NodeRows(fixed, same, cluster.num_ranks, cluster.num_slots)
    nodes, num_groups = cluster.num_nodes, node_of_group.shape[1]
    order = node_of_group if place_on_node is None else node_of_group.astype(np.int64) * num_groups + place_on_node
    groups = np.argsort(order, axis=1, kind="stable")  # by node, then by place or number
    by_group = np.arange(experts, dtype=np.int32).reshape(num_groups, -1)
    expert = by_group[groups].reshape(layers * nodes, -1)
    weight = fixed.reshape(layers, num_groups, -1)[np.arange(layers)[:, None], groups].reshape(layers * nodes, -1)
    return NodeRows(weight, expert, cluster.ranks_per_node, cluster.num_slots // nodes)
