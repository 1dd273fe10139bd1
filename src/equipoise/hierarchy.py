"""Groups to nodes: a hierarchical problem becomes one small global problem for each layer and node."""

from __future__ import annotations

from dataclasses import dataclass

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

    def join(self, physical_to_logical: NDArray[np.int32], num_layers: int) -> NDArray[np.int32]:
        """Return the rows' placements as one of whole layers: int32, shape (num_layers, slots of all nodes)."""
        named = np.take_along_axis(self.expert, physical_to_logical.astype(np.int64), axis=1)
        return named.reshape(num_layers, -1)


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
        everyone = np.tile(np.arange(experts, dtype=np.int32), (layers, 1))
        return NodeRows(fixed, everyone, cluster.num_ranks, cluster.num_slots)
    nodes, group_size = cluster.num_nodes, experts // node_of_group.shape[1]
    groups = np.argsort(node_of_group, axis=1, kind="stable")  # by node, then by number
    expert = (groups[:, :, None] * group_size + np.arange(group_size)).reshape(layers * nodes, -1).astype(np.int32)
    weight = np.take_along_axis(fixed, expert.reshape(layers, -1).astype(np.int64), axis=1).reshape(expert.shape)
    return NodeRows(np.ascontiguousarray(weight), expert, cluster.ranks_per_node, cluster.num_slots // nodes)
