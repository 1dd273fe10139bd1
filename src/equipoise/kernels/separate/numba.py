"""Move replicas that share a rank with another of their expert, native."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import allocating, native, spliced

__all__ = ["separate", "separate_duplicates"]


def separate_duplicates(physical_to_logical: NDArray[np.int32], num_ranks: int, fixed: NDArray[np.int64]) -> None:
    """Exchange replicas, in place, until no rank holds an expert twice that need not.

    Parameters
    ----------
    physical_to_logical : int32 array, shape (rows, num_slots)
        Every expert has a slot, every slot an expert.
    num_ranks : int
    fixed : int64 array, shape (rows, num_logical_experts)
        Integer loads. See the folder's contract for which exchange is made.
    """
    # As wide as descent's own, for which it is compiled already.
    held = physical_to_logical.reshape(len(physical_to_logical), num_ranks, -1).astype(np.int64)
    _separate_rows(held, np.ascontiguousarray(fixed))
    physical_to_logical[:] = held.reshape(physical_to_logical.shape)


@native
def _separate_rows(held, weight):
    for row in range(len(held)):
        separate(held[row], weight[row])


@allocating
def separate(held, weight):
    """Exchange replicas in ``held`` [ranks, slots] of one row until none shares a rank that need not."""
    ranks, slots = held.shape
    experts = len(weight)
    replicas = np.zeros(experts, dtype=np.int64)
    on_rank = np.zeros((ranks, experts), dtype=np.int32)
    together = False
    for g in range(ranks):
        for s in range(slots):
            replicas[held[g, s]] += 1
            on_rank[g, held[g, s]] += 1
            together |= on_rank[g, held[g, s]] > 1
    if not together:
        return
    each = np.empty(experts, dtype=np.int64)
    for e in range(experts):
        each[e] = weight[e] // max(replicas[e], 1)
    load = np.zeros(ranks, dtype=np.int64)
    num_holders = np.zeros(experts, dtype=np.int64)
    for g in range(ranks):
        for s in range(slots):
            load[g] += each[held[g, s]]
        for e in range(experts):
            num_holders[e] += on_rank[g, e] > 0
    for g in range(ranks):
        for s in range(slots):
            e = held[g, s]
            if on_rank[g, e] < 2 or num_holders[e] == ranks:
                continue
            best, best_rank, best_slot = np.int64(-1), -1, -1
            for h in range(ranks):
                if on_rank[h, e] > 0:
                    continue
                for t in range(slots):
                    f = held[h, t]
                    if on_rank[g, f] > 0:
                        continue
                    heavier = max(load[g] + each[f] - each[e], load[h] + each[e] - each[f])
                    if best_rank < 0 or heavier < best:
                        best, best_rank, best_slot = heavier, h, t
            if best_rank < 0:
                _deal(held, replicas, weight)
                return
            f = held[best_rank, best_slot]
            held[g, s], held[best_rank, best_slot] = f, e
            on_rank[g, e] -= 1
            on_rank[g, f] += 1
            on_rank[best_rank, f] -= 1
            on_rank[best_rank, e] += 1
            num_holders[e] += 1
            num_holders[f] += on_rank[best_rank, f] > 0  # a duplicate of f too may have found a rank of its own
            load[g] += each[f] - each[e]
            load[best_rank] += each[e] - each[f]


@spliced
def _deal(held, replicas, weight):
    """Deal all replicas round the ranks, the experts with the heaviest replicas first, ties to the lowest."""
    ranks = held.shape[0]
    order = np.empty(len(weight), dtype=np.int64)
    for e in range(len(weight)):
        at = e
        while at > 0 and weight[order[at - 1]] * replicas[e] < weight[e] * replicas[order[at - 1]]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = e
    at = 0
    for e in order:
        for _ in range(replicas[e]):
            held[at % ranks, at // ranks] = e
            at += 1
