"""Whole groups on nodes leave some node with too much, whichever way they are put.

For each way to put equally many groups on each node, the busiest node's ranks carry at least its mean rank load and its
own t*; the least of that over all ways is a bound. The contract of the code, and of its plain counterpart in
``grouping_reference.py``:

    choose(load, sets, set_of_node, ranks_per_node, slots_per_node) -> chosen, bound

``load`` float64 [layers, experts]; ``sets`` int64 [sets, groups a node], the groups that may share a node, ascending;
``set_of_node`` int64 [groupings, nodes], one row for each way to put equally many groups on each node, up to the names
of the nodes. ``chosen`` int64 [layers] is the row whose busiest node promises least; of equal ones that with the
least mean rank load on its fullest node, then the first. ``bound`` float64 [layers] is what it promises: the largest
over its nodes of max(mean rank load, t*), in tokens. No placement that keeps groups whole has a less busy rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds.bound import GROUPS, Bound, Floats
from equipoise.kernels.native import frozen, internal, native
from equipoise.problem import PlacementProblem

__all__ = ["BOUND", "all_groupings", "best_groupings", "choose", "node_sets"]

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
        """Yield the ways to put the groups that are left on the nodes from this one on."""
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
        What the busiest rank carries at least, in the unit of ``load``; see the page's contract.
    """
    assert problem.num_expert_groups is not None
    cluster = problem.cluster
    table = all_groupings(problem.num_expert_groups, cluster.num_nodes)
    if table is None:
        return None
    slots_per_node = cluster.num_slots // cluster.num_nodes
    sets, set_of_node = node_sets(problem.num_expert_groups, cluster.num_nodes)
    chosen, bound = choose(load, sets, set_of_node, cluster.ranks_per_node, slots_per_node)
    return table[chosen], bound


def choose(
    load: NDArray[np.float64],
    sets: NDArray[np.int64],
    set_of_node: NDArray[np.int64],
    ranks_per_node: int,
    slots_per_node: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose a grouping for each layer; see the page's contract."""
    chosen, bound = np.zeros(len(load), np.int64), np.empty(len(load))
    _choose(frozen(load, np.float64), sets, set_of_node, ranks_per_node, slots_per_node, chosen, bound)
    return chosen, bound


@native
def _choose(load, sets, set_of_node, ranks_per_node, slots_per_node, chosen, bound):
    layers, experts = load.shape
    groupings, nodes = set_of_node.shape
    size = experts // (sets.shape[1] * nodes)
    group_load, set_load = np.empty(experts // size), np.empty(len(sets))
    busiest, inside = np.empty(groupings), np.empty(experts // nodes)
    replicas = np.empty(experts // nodes, np.int64)
    for layer in range(layers):
        for group in range(len(group_load)):
            group_load[group] = load[layer, group * size : (group + 1) * size].sum()
        for k in range(len(sets)):
            set_load[k] = 0.0
            for group in sets[k]:
                set_load[k] += group_load[group]
        for k in range(groupings):
            busiest[k] = 0.0
            for one in set_of_node[k]:
                busiest[k] = max(busiest[k], set_load[one])
            busiest[k] /= ranks_per_node
        best = np.inf
        while True:
            k = int(np.argmin(busiest))
            if busiest[k] >= best:
                break
            promise = busiest[k]
            busiest[k] = np.inf
            for one in set_of_node[k]:
                for i in range(len(sets[one])):
                    group = sets[one, i]
                    for e in range(size):
                        inside[i * size + e] = load[layer, group * size + e]
                promise = max(promise, _largest_replica(inside, slots_per_node, promise, replicas))
                if promise >= best:
                    break
            if promise < best:
                best, chosen[layer] = promise, k
        bound[layer] = best


@internal
def _largest_replica(load, num_slots, promise, replicas):
    """Return t* of one node, or 0 if it is no more than ``promise``, which one count of slots shows."""
    need = np.float64(len(load))
    for each in load:
        if each > promise:
            need += np.ceil(each / promise) - 1.0 if promise > 0 else np.inf
    if need <= num_slots:
        return 0.0
    replicas[:] = 1
    for left in range(num_slots - len(load), -1, -1):
        hottest, largest = 0, load[0] / replicas[0]
        for expert in range(1, len(load)):
            each = load[expert] / replicas[expert]
            if each > largest:
                hottest, largest = expert, each
        if left > 0:
            replicas[hottest] += 1
    return largest


def _holds(problem: PlacementProblem) -> bool:
    if not problem.is_hierarchical:
        return False
    assert problem.num_expert_groups is not None
    return all_groupings(problem.num_expert_groups, problem.cluster.num_nodes) is not None


def _prove(problem: PlacementProblem, known: Floats, achieved: Floats) -> Floats:
    best = best_groupings(problem, problem.load)
    assert best is not None
    return best[1]


BOUND = Bound(
    name="grouping",
    argument="whole groups on nodes leave some node with too much, whichever way they are put",
    proof=__doc__,
    domain=f"hierarchical problems with at most {MOST_GROUPINGS:,} ways to put groups on nodes",
    holds=_holds,
    prove=_prove,
    any_shares=True,
    held_up_by=GROUPS,
)
