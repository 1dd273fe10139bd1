"""Which rank takes over which set of experts: ranks are alike, so the one that already holds most of a set gets it.

Nodes are alike too, and so is which node takes over which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import IndivisibleError, shown
from equipoise.kernels.assignment.numba import assign
from equipoise.kernels.native import internal, native
from equipoise.problem import count
from equipoise.replan.keep_slots import slot_tables
from equipoise.threads import for_each, num_threads

__all__ = ["match_nodes", "match_ranks"]

Ints = NDArray[np.int32]


def match_ranks(
    physical_to_logical: Any, current: Any, num_ranks: int, num_nodes: int = 1, threads: int | None = None
) -> Ints:
    """Return the placement with the ranks of each node relabelled so that as many experts as possible stay.

    Parameters
    ----------
    physical_to_logical, current, num_ranks
        As in ``keep_slots``.
    num_nodes : int, default 1
        Ranks only change places within a node, so that expert groups stay where they were put. Must divide
        ``num_ranks``.
    threads : int or None, default None
        None uses all processors. It never changes the result.

    Returns
    -------
    int32 array, shape (num_layers, num_slots)
        The same sets of experts, each whole on one rank of the same node; rank loads are the same numbers in
        another order. No other relabelling within nodes leaves more slots with an expert that their rank holds in
        ``current``, and of those that leave as many none lets more slots stay as they are. Slots within a rank keep
        their order: ``keep_slots`` comes after. The same arguments give the same bits.

    Raises
    ------
    InvalidPlacementError, IndivisibleError
        As in ``keep_slots``, and if the nodes do not divide the ranks.

    Notes
    -----
    An assignment problem for each layer and node, solved exactly by shortest augmenting paths
    in integers.

    Examples
    --------
    >>> match_ranks([[2, 3, 0, 1]], current=[[0, 1, 2, 3]], num_ranks=2).tolist()
    [[0, 1, 2, 3]]
    """
    new, old, slots_per_rank = slot_tables(physical_to_logical, current, num_ranks)
    num_ranks, num_nodes = new.shape[1] // slots_per_rank, count(num_nodes, "num_nodes")
    if num_ranks % num_nodes:
        raise IndivisibleError(
            f"{num_ranks} ranks do not spread evenly over {shown(num_nodes)} nodes. "
            f"Use a number of ranks that {shown(num_nodes)} divides."
        )
    return _run(new, old, slots_per_rank, num_ranks // num_nodes, False, threads)


def match_nodes(new: Ints, old: Ints, num_nodes: int, threads: int | None) -> Ints:
    """Return ``new`` with its nodes, and the ranks of each, renamed so that most experts stay on their rank.

    All int32 [layers, ranks, slots], -1 for an empty slot. Exact: the ranks of each pair of nodes are matched first,
    then the nodes.
    """
    layers, ranks, slots = new.shape
    # Copies, because the native code would be compiled once more for read-only arrays.
    tables = np.array(new.reshape(layers, -1)), np.array(old.reshape(layers, -1))
    return _run(*tables, slots, ranks // num_nodes, num_nodes > 1, threads).reshape(new.shape)


def _run(
    new: Ints, old: Ints, slots_per_rank: int, ranks_per_node: int, rename_nodes: bool, threads: int | None
) -> Ints:
    experts = int(max(new.max(initial=-1), old.max(initial=-1))) + 1
    matched = np.empty_like(new)
    units = np.array_split(np.arange(len(new)), min(len(new), num_threads(threads)) or 1)

    def work(layers: NDArray[np.int64]) -> None:
        """Name the ranks of some layers."""
        part = slice(layers[0], layers[-1] + 1)
        _match(new[part], old[part], slots_per_rank, ranks_per_node, experts, rename_nodes, matched[part])

    for_each(work, [unit for unit in units if len(unit)], threads)
    return matched


@native
def _match(new, old, slots_per_rank, ranks_per_node, experts, rename_nodes, matched):
    layers, slots = new.shape
    nodes = slots // slots_per_rank // ranks_per_node
    # Of each new and old node, less what each pair of their ranks would keep: for each slot whose expert the old rank
    # holds, one more than all slots of a rank, so that transfers count first; and one for each slot that need not even
    # be copied within the rank.
    stay = np.empty((nodes, nodes, ranks_per_node, ranks_per_node), dtype=np.int64)
    taken_by = np.empty((nodes, nodes, ranks_per_node), dtype=np.int64)
    kept = np.zeros((nodes, nodes), dtype=np.int64)  # less the slots that hold what their rank held
    in_order, source = np.arange(ranks_per_node), np.arange(nodes)  # the new node that each old node takes over
    # The old slots of a node that hold an expert are a chain: the last of them, then each the one before it.
    last, before = np.empty(experts, dtype=np.int64), np.empty(slots, dtype=np.int64)
    wanted = np.zeros(experts, dtype=np.int64)
    for layer in range(layers):
        for b in range(nodes):
            last[:] = -1
            first = b * ranks_per_node
            for s in range(first * slots_per_rank, min((first + ranks_per_node) * slots_per_rank, old.shape[1])):
                if old[layer, s] >= 0:
                    before[s] = last[old[layer, s]]
                    last[old[layer, s]] = s
            for a in range(nodes) if rename_nodes else range(b, b + 1):
                kept[a, b] = 0
                taken = in_order
                if _compare(new[layer], a, first, slots_per_rank, last, before, wanted, stay[a, b]):
                    taken = assign(stay[a, b])
                for h in range(ranks_per_node):
                    taken_by[a, b, h] = taken[h]
                    kept[a, b] -= -stay[a, b, taken[h], h] // (slots_per_rank + 1)
        if rename_nodes:
            source = assign(kept)
        for b in range(nodes):
            a = source[b]
            for h in range(ranks_per_node):
                to = (b * ranks_per_node + h) * slots_per_rank
                at = (a * ranks_per_node + taken_by[a, b, h]) * slots_per_rank
                for s in range(slots_per_rank):
                    matched[layer, to + s] = new[layer, at + s]


@internal
def _compare(new, node, first, slots_per_rank, last, before, wanted, stay):
    """Set ``stay`` for the ranks of a new ``node`` and the old ranks from ``first``, whose chains are given.

    Returns whether they have an expert in common.
    """
    stay[:], common = 0, False
    for g in range(len(stay)):
        rank = node * len(stay) + g
        own = new[rank * slots_per_rank : (rank + 1) * slots_per_rank]
        for e in own:
            if e >= 0:
                wanted[e] += 1
        for e in own:
            if e < 0 or wanted[e] == 0:
                continue
            at, holder, copies = last[e], np.int64(-1), np.int64(0)
            common |= at >= 0
            while at >= 0:
                if at // slots_per_rank != holder:
                    holder, copies = at // slots_per_rank, np.int64(0)
                    stay[g, holder - first] -= wanted[e] * (slots_per_rank + 1)
                stay[g, holder - first] -= np.int64(copies < wanted[e])
                copies += 1
                at = before[at]
            wanted[e] = 0
    return common
