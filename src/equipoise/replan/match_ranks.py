"""Which rank takes over which set of experts: ranks are alike, so the one that already holds most of a set gets it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import IndivisibleError
from equipoise.kernels.assignment.numba import assign
from equipoise.kernels.native import native
from equipoise.problem import count
from equipoise.replan.keep_slots import slot_tables
from equipoise.threads import for_each, num_threads

__all__ = ["match_ranks"]


def match_ranks(
    physical_to_logical: Any, current: Any, num_ranks: int, num_nodes: int = 1, threads: int | None = None
) -> NDArray[np.int32]:
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
    num_nodes = count(num_nodes, "num_nodes")
    if num_ranks % num_nodes:
        raise IndivisibleError(
            f"{num_ranks} ranks do not spread evenly over {num_nodes} nodes. "
            f"Use a number of ranks that {num_nodes} divides."
        )
    experts = int(max(new.max(initial=-1), old.max(initial=-1))) + 1
    matched = np.empty_like(new)
    ranks_per_node = num_ranks // num_nodes
    units = np.array_split(np.arange(len(new)), min(len(new), num_threads(threads)) or 1)

    def work(layers: NDArray[np.int64]) -> None:
        part = slice(layers[0], layers[-1] + 1)
        _match(new[part], old[part], slots_per_rank, ranks_per_node, experts, matched[part])

    for_each(work, [unit for unit in units if len(unit)], threads)
    return matched


@native
def _match(new, old, slots_per_rank, ranks_per_node, experts, matched):
    layers, slots = new.shape
    ranks = slots // slots_per_rank
    # Less what each pair of ranks would keep: for each slot whose expert the old rank holds, one more than all slots
    # of a rank, so that transfers count first; and one for each slot that need not even be copied within the rank.
    stay = np.empty((ranks_per_node, ranks_per_node), dtype=np.int64)
    # The old slots of a node that hold an expert are a chain: the last of them, then each the one before it.
    last, before = np.empty(experts, dtype=np.int64), np.empty(slots, dtype=np.int64)
    wanted = np.zeros(experts, dtype=np.int64)
    for layer in range(layers):
        for first in range(0, ranks, ranks_per_node):
            last[:] = -1
            for s in range(first * slots_per_rank, min((first + ranks_per_node) * slots_per_rank, old.shape[1])):
                if old[layer, s] >= 0:
                    before[s] = last[old[layer, s]]
                    last[old[layer, s]] = s
            stay[:] = 0
            for g in range(ranks_per_node):
                own = new[layer, (first + g) * slots_per_rank : (first + g + 1) * slots_per_rank]
                for e in own:
                    if e >= 0:
                        wanted[e] += 1
                for e in own:
                    if e < 0 or wanted[e] == 0:
                        continue
                    at, rank, copies = last[e], np.int64(-1), np.int64(0)
                    while at >= 0:
                        if at // slots_per_rank != rank:
                            rank, copies = at // slots_per_rank, np.int64(0)
                            stay[g, rank - first] -= wanted[e] * (slots_per_rank + 1)
                        stay[g, rank - first] -= np.int64(copies < wanted[e])
                        copies += 1
                        at = before[at]
                    wanted[e] = 0
            taken_by = assign(stay)
            for h in range(ranks_per_node):
                to, source = (first + h) * slots_per_rank, (first + taken_by[h]) * slots_per_rank
                for s in range(slots_per_rank):
                    matched[layer, to + s] = new[layer, source + s]
