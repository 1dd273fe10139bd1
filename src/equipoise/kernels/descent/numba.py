"""Joint descent of one row after the other; see the folder's contract."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.descent import EFFORTS, STAGES
from equipoise.kernels.descent.improve import improve, keep
from equipoise.kernels.descent.pairing import pair, search_counts
from equipoise.kernels.descent.start import count_least_largest, deal_greedily, fold, set_target
from equipoise.kernels.descent.state import NEVER, PAIRED, new_ranks, new_space, set_ranks, unpack
from equipoise.kernels.native import native
from equipoise.kernels.separate.numba import separate
from equipoise.threads import for_each, num_threads

__all__ = ["plan_rows"]

PAIRING_TRIES = np.array([3, 4, 16])


def plan_rows(
    weight: NDArray[np.int64],
    num_ranks: int,
    slots_per_rank: int,
    floor: NDArray[np.int64],
    max_gap: float,
    effort: str,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """Plan every row of ``weight``; see the folder's contract."""
    rows, experts = weight.shape
    level = EFFORTS[effort]
    held = np.empty((rows, num_ranks, slots_per_rank), np.int32)
    stages, within = np.zeros((rows, len(STAGES)), np.int64), np.empty(rows, np.bool_)
    names, bits = np.arange(experts), (experts - 1).bit_length()
    parts = min(2 * num_threads(threads), rows)  # blocks of rows, contiguous: other strides would be compiled anew
    edges = [rows * part // parts for part in range(parts + 1)]

    def plan(part: int) -> None:
        block = slice(edges[part], edges[part + 1])
        by_load = (~weight[block] << bits) | names  # load and expert share an integer, so that one sort orders both
        by_load.sort(axis=1)
        aims = np.empty(len(by_load), np.int64)
        _plan_rows(by_load, bits, floor[block], max_gap, level, aims, held[block], stages[block], within[block])
        hard = np.flatnonzero(aims >= 0)
        if len(hard) and level > 0:
            from equipoise.kernels.descent.harder import search_rows  # half the code, and most models never need it

            found = held[block][hard], stages[block][hard], within[block][hard]
            search_rows(by_load[hard], bits, floor[block][hard], max_gap, level, aims[hard], *found)
            held[block][hard], stages[block][hard], within[block][hard] = found

    for_each(plan, range(parts), threads)
    return held, stages, within


@native
def _plan_rows(by_load, bits, floor, max_gap, effort, aims, held, stages, within):  # type: ignore[no-untyped-def]
    """Fill ``held`` with first descents; ``aims`` is set where a search beyond them makes sense, and -1 elsewhere."""
    _, num_ranks, slots = held.shape
    experts = by_load.shape[1]
    weight, names = np.empty(experts, np.int64), np.empty(experts, np.int32)
    ranks, best = new_ranks(num_ranks, slots, experts), np.empty((num_ranks, slots), np.int64)
    space = new_space(num_ranks, slots, experts, 0)
    for row in range(len(by_load)):
        unpack(by_load[row], bits, weight, names)
        within[row], aims[row] = _plan_row(weight, floor[row], max_gap, effort, ranks, best, space, stages[row])
        for g in range(num_ranks):
            for s in range(slots):
                held[row, g, s] = names[best[g, s]]


@native
def _plan_row(weight, floor, max_gap, effort, ranks, best, space, stages):  # type: ignore[no-untyped-def]
    """Fill ``best`` [ranks, slots] with the better of descent and the plain answer.

    Returns whether it meets the target, and what a search beyond may aim for: the first descent, or -1 for no search.
    """
    num_ranks, slots = best.shape
    keys, spare = space.keys, space.spare
    _, bound, target = set_target(weight, num_ranks, slots, floor, max_gap, ranks.replicas)
    paired = _descend_first(weight, bound, target, max_gap, effort, ranks, space, stages)
    aim = reached = keep(ranks, best)
    if slots == 1 or reached <= paired:
        return reached <= target, np.int64(-1)
    for level in range(effort if slots == 2 else 0):  # pairs had to be parted, and less search may have parted fewer
        count_least_largest(weight, num_ranks * slots, num_ranks, ranks.replicas)
        _descend_first(weight, bound, target, max_gap, level, ranks, space, stages)
        if level == 0:
            aim = ranks.load[ranks.order[-1]]
        if ranks.load[ranks.order[-1]] < reached:
            reached = keep(ranks, best)
    # Never worse than the plain answer; with two slots a rank ``fold`` has not left the order that this needs.
    if slots > 2 and reached > bound and deal_greedily(weight, ranks, keys, reached, ranks.expert, spare):
        separate(ranks.expert, weight)
        set_ranks(ranks, weight, keys, spare)
        improve(ranks, target, reached, space, stages)
        if ranks.load[ranks.order[-1]] < reached:
            reached = keep(ranks, best)
    return reached <= target, aim if reached > target else np.int64(-1)


@native
def _descend_first(weight, bound, target, max_gap, effort, ranks, space, stages):  # type: ignore[no-untyped-def]
    """Deal the replicas, or pair them where ranks have two slots, and improve that.

    Returns the heaviest pair, which no other placement of the same counts undercuts; 0 where nothing was paired.
    """
    paired = np.int64(0)
    if ranks.expert.shape[1] == 2:
        stages[PAIRED] += search_counts(
            weight, bound, max_gap, PAIRING_TRIES[effort], ranks.replicas, ranks.expert, space.keys, space.spare
        )
        paired = pair(weight, ranks.replicas, ranks.expert, space.keys, space.spare)
        separate(ranks.expert, weight)
        set_ranks(ranks, weight, space.keys, space.spare)
        if ranks.load[ranks.order[-1]] <= paired:
            return paired
    else:
        fold(weight, ranks, space.keys, space.spare)
    improve(ranks, target, NEVER, space, stages)
    return paired
