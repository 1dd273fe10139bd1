"""Joint descent of one row after the other; see the folder's contract."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.descent import EFFORTS, STAGES
from equipoise.descent.improve import improve, keep
from equipoise.descent.start import deal_greedily, fold, set_target
from equipoise.descent.state import NEVER, new_ranks, new_space, set_ranks, unpack
from equipoise.kernels.native import native, spliced
from equipoise.kernels.separate.numba import separate
from equipoise.threads import for_each, num_threads

__all__ = ["plan_rows"]

FOLDED, PLAIN = 0, 1


def plan_rows(
    weight: NDArray[np.int64],
    names: NDArray[Any],
    num_ranks: int,
    slots_per_rank: int,
    floor: NDArray[np.int64],
    max_gap: float,
    effort: str,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Plan every row of ``weight``; see the folder's contract."""
    rows, level = len(weight), EFFORTS[effort]
    held, stages = np.empty((rows, num_ranks, slots_per_rank), np.int32), np.zeros((rows, len(STAGES)), np.int64)
    busiest, target, aims = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows, np.int64)
    passed = np.zeros(rows, np.bool_)
    parts = min(2 * num_threads(threads), rows)  # blocks of rows, contiguous: other strides would be compiled anew
    edges = [rows * part // parts for part in range(parts + 1)]
    descend_first = _descend_first
    if slots_per_rank == 2:  # compiled only where it is needed, as is what is harder
        from equipoise.descent.two_slots import descend_first

    def plan(part: int) -> None:
        block = slice(edges[part], edges[part + 1])
        bits = int(names[block].max()).bit_length()
        by_load = (~weight[block] << bits) | names[
            block
        ]  # one integer has load and expert, so that one sort orders both
        by_load.sort(axis=1)
        descend_first(
            by_load, bits, floor[block], max_gap, level,
            aims[block], target[block], held[block], busiest[block], passed[block], stages[block],
        )  # fmt: skip
        hard = np.flatnonzero(aims[block] >= 0)
        if len(hard) and level > 0:
            from equipoise.descent.harder import search_rows  # half the code, and most models never need it

            found = target[block][hard], held[block][hard], busiest[block][hard], stages[block][hard]
            search_rows(by_load[hard], bits, floor[block][hard], max_gap, level, aims[block][hard], *found)
            target[block][hard], held[block][hard], busiest[block][hard], stages[block][hard] = found

    for_each(plan, range(parts), threads)
    return held, busiest, busiest <= target, passed, stages


@native
def _descend_first(by_load, bits, floor, max_gap, effort, aims, target, held, busiest, passed, stages):
    """Fill ``held`` with first descents; ``aims`` is set where a search beyond them makes sense, and -1 elsewhere.

    ``passed`` stays as it is: the plain answer is looked at, but not quite as it is where duplicates are moved apart.
    """
    _, num_ranks, slots = held.shape
    experts = by_load.shape[1]
    weight, names = np.empty(experts, np.int64), np.empty(experts, np.int32)
    ranks, best = new_ranks(num_ranks, slots, experts), np.empty((num_ranks, slots), np.int64)
    space = new_space(num_ranks, slots, experts, 0)
    for row in range(len(by_load)):
        unpack(by_load[row], bits, weight, names)
        busiest[row], target[row], aims[row] = _descend_row(
            weight, floor[row], max_gap, ranks, best, space, stages[row]
        )
        for g in range(num_ranks):
            for s in range(slots):
                held[row, g, s] = names[best[g, s]]


@spliced
def _descend_row(weight, floor, max_gap, ranks, best, space, stages):
    """Fill ``best`` [ranks, slots] with the better of descent and the plain answer, which is improved too.

    Returns the busiest rank, the target, and what a search beyond may aim for: the first descent, or -1 for no search.
    """
    num_ranks, slots = best.shape
    _, bound, target = set_target(weight, num_ranks, slots, floor, max_gap, ranks.replicas)
    aim = reached = NEVER
    for start in (FOLDED, PLAIN):
        if start == FOLDED:
            fold(weight, ranks, space.keys, space.spare)
        elif (
            slots > 1
            and reached > bound
            and deal_greedily(weight, ranks, space.keys, reached, ranks.expert, space.spare)
        ):
            separate(ranks.expert, weight)
            set_ranks(ranks, weight, space.keys, space.spare)
        else:
            break
        improve(ranks, target, reached, space, stages)
        if ranks.load[ranks.order[-1]] < reached:
            reached = keep(ranks, best)
        if start == FOLDED:
            aim = reached
    return reached, target, aim if slots > 1 and reached > target else np.int64(-1)
