"""Move replicas that share a rank with another of their expert, native."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import internal, native

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
    scratch = np.empty(2 * weight.shape[1] + held.shape[1], np.int64)
    for row in range(len(held)):
        separate(held[row], weight[row], scratch)


@internal
def separate(held, weight, scratch):
    """Exchange replicas in ``held`` [ranks, slots] of one row until none shares a rank that need not.

    ``scratch`` int64 has room for two numbers an expert and one a rank.
    """
    ranks, slots = held.shape
    experts = len(weight)
    replicas, each, load = scratch[:experts], scratch[experts : 2 * experts], scratch[2 * experts :]
    for e in range(experts):
        replicas[e] = 0
    for g in range(ranks):
        for s in range(slots):
            replicas[held[g, s]] += 1
    for e in range(experts):
        each[e] = weight[e] // max(replicas[e], 1)
    for g in range(ranks):
        load[g] = 0
        for s in range(slots):
            load[g] += each[held[g, s]]
    for g in range(ranks):
        for s in range(slots):
            e = held[g, s]
            if _times(held, g, e) < 2:
                continue
            best, best_rank, best_slot, is_everywhere = np.int64(-1), -1, -1, True
            for h in range(ranks):
                if _times(held, h, e) > 0:
                    continue
                is_everywhere = False
                for t in range(slots):
                    f = held[h, t]
                    if _times(held, g, f) > 0:
                        continue
                    heavier = max(load[g] + each[f] - each[e], load[h] + each[e] - each[f])
                    if best_rank < 0 or heavier < best:
                        best, best_rank, best_slot = heavier, h, t
            if is_everywhere:
                continue
            if best_rank < 0:
                _deal(held, replicas, weight, each)
                return
            f = held[best_rank, best_slot]
            held[g, s], held[best_rank, best_slot] = f, e
            load[g] += each[f] - each[e]
            load[best_rank] += each[e] - each[f]


@internal
def _times(held, g, e):
    """Return how many replicas of expert ``e`` rank ``g`` holds."""
    times = 0
    for s in range(held.shape[1]):
        times += held[g, s] == e
    return times


@internal
def _deal(held, replicas, weight, order):
    """Deal all replicas round the ranks, the experts with the heaviest replicas first, ties to the lowest."""
    ranks, known = held.shape[0], 0
    for e in range(len(weight)):
        if replicas[e] == 0:
            continue
        at = known
        while at > 0 and weight[order[at - 1]] * replicas[e] < weight[e] * replicas[order[at - 1]]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = e
        known += 1
    at = 0
    for i in range(known):
        for _ in range(replicas[order[i]]):
            held[at % ranks, at // ranks] = order[i]
            at += 1
