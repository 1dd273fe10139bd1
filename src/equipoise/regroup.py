"""Other groupings for layers whose grouping promised more than it kept: chosen by plans, no longer by bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import CheckedLoad
from equipoise.bounds.grouping import node_sets
from equipoise.bounds.table import lower_bounds
from equipoise.hierarchy import NodeRows
from equipoise.problem import Cluster, PlacementProblem

__all__ = ["Regrouping", "find_regroupings"]

MOST_TRIED = {"fast": 0, "balanced": 8, "thorough": 512}
"""How many groupings of a layer are tried, those first that promise most; by effort."""


@dataclass(frozen=True, eq=False)
class Regrouping:
    """Groupings of some layers that may be better than the one in hand, and the node sets that they are made of.

    Attributes
    ----------
    layer : int64 array, shape (num_rows,)
        The layer of each row.
    rows : NodeRows
        One row for each set of groups that some grouping puts on a node.
    groupings : list of (layer, int64 array of rows [groupings, nodes])
    """

    layer: NDArray[np.int64]
    rows: NodeRows
    groupings: list[tuple[int, NDArray[np.int64]]]

    def choose(
        self, held: NDArray[np.int32], busiest: NDArray[np.int64], found: NDArray[np.int32], reached: NDArray[np.int64]
    ) -> None:
        """Put the best grouping of each layer into ``found`` and ``reached`` where it is better; the first of equals.

        ``held`` int32 [rows, slots of a node] and ``busiest`` int64 [rows] are the plans of the rows.
        """
        for layer, nodes in self.groupings:
            promised = busiest[nodes].max(axis=1)
            best = int(promised.argmin())
            if promised[best] < reached[layer]:
                reached[layer] = promised[best]
                found[layer] = held[nodes[best]].ravel()


def find_regroupings(
    problem: PlacementProblem,
    fixed: NDArray[np.int64],
    reached: NDArray[np.int64],
    open_: NDArray[np.int64],
    effort: str,
) -> Regrouping | None:
    """Return what to try for the layers ``open_``, whose busiest rank carries ``reached``, or None for nothing.

    Only groupings that are not proved to be as bad, where there are few enough to look at all.
    """
    cluster, groups = problem.cluster, problem.num_expert_groups
    assert groups is not None
    if not MOST_TRIED[effort] or not len(open_):
        return None
    sets, set_of_node = node_sets(groups, cluster.num_nodes)
    size = problem.num_logical_experts // groups
    members = (sets[:, :, None] * size + np.arange(size)).reshape(len(sets), -1).astype(np.int32)
    node = Cluster(cluster.ranks_per_node, cluster.slots_per_rank)
    layer_of: list[int] = []
    set_rows, groupings = [], []
    for layer in open_.tolist():
        weight = fixed[layer][members]
        bound, _ = lower_bounds(PlacementProblem(CheckedLoad(weight.astype(np.float64)), node), quick=True)
        promised = bound[set_of_node].max(axis=1)
        tried = np.argsort(promised, kind="stable")[: MOST_TRIED[effort]]
        tried = tried[promised[tried] < reached[layer]]
        if not len(tried):
            continue
        wanted, row = np.unique(set_of_node[tried], return_inverse=True)
        groupings.append((layer, row.reshape(len(tried), -1) + len(layer_of)))
        layer_of += [layer] * len(wanted)
        set_rows.append(wanted)
    if not groupings:
        return None
    layers, names = np.array(layer_of), members[np.concatenate(set_rows)]
    rows = NodeRows(
        fixed[layers[:, None], names], names, cluster.ranks_per_node, cluster.num_slots // cluster.num_nodes
    )
    return Regrouping(layers, rows, groupings)
