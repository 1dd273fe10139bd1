"""Joint descent of one row after the other; see the folder's contract."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.descent import EFFORTS, STAGES
from equipoise.kernels.descent.company import find_company
from equipoise.kernels.descent.improve import chain, convert, descend, swap_pairs
from equipoise.kernels.descent.pairing import pair, search_counts
from equipoise.kernels.descent.squeeze import deal_again, squeeze
from equipoise.kernels.descent.start import count_least_largest, count_relaxed, deal_greedily, fold
from equipoise.kernels.descent.state import new_ranks, new_space, set_ranks
from equipoise.kernels.native import native
from equipoise.kernels.separate.numba import separate
from equipoise.threads import for_each, num_threads

__all__ = ["plan_rows"]

SWAPS, PAIRS, CHAINS, RELAXED, SQUEEZED, FITTING, CONVERTED, PAIRED = range(len(STAGES))
NEVER = np.int64(2**62)

# How far the largest replica may rise from t* towards the target, and how the freed slots are spent. Where t*
# exceeds half a rank, more than R such replicas cannot be told apart, and much must change: the first nine settle
# nearly all layers, the most by the first; the others are for few slots. Elsewhere small changes are often enough.
SKEWED = np.array(
    [(0.92, 0), (0.72, 3), (1.0, 1), (0.96, 3), (1.0, 0), (0.84, 3), (1.0, 2), (0.84, 0), (1.0, 3)]
    + [(f, rule) for rule, fs in (
        (0, (0.3, 0.96, 0.6, 0.9, 0.45, 0.8, 0.15)),
        (2, (0.2, 0.8)),
        (1, (0.45, 0.96, 0.8, 0.6, 0.9, 0.3, 0.15)),
        (2, (0.1, 0.4, 0.6, 0.9, 0.96)),
        (0, (0.05, 0.1, 0.2, 0.25, 0.35, 0.4, 0.5, 0.55, 0.65, 0.7, 0.75, 0.85, 0.93, 0.98, 0.99)),
    ) for f in fs]
)  # fmt: skip
LEVEL = np.array(
    [(0.15, 0), (0.5, 1)]
    + SKEWED[:9].tolist()
    + [(f, rule) for f in (0.15, 0.3, 0.05, 0.1, 0.2, 0.25, 0.35, 0.4) for rule in (0, 1, 2)]
)
SKEWED_TRIES, LEVEL_TRIES = np.array([0, 9, len(SKEWED)]), np.array([0, 11, len(LEVEL)])
LEVEL_ALWAYS = np.array([0, 1, len(LEVEL)])  # then only while far: what is nearly level needs other means, not counts
FAR, NEAR = 3, 16  # above the target, in room between bound and target: other counts are tried, squeezing is worth it
DEALS = np.array([0, 64, 128])
FITTED = np.array([(0.08, 0), (0.3, 1), (0.72, 3), (1.0, 1), (0.96, 3), (0.6, 0), (0.92, 0), (0.84, 3)])
FITTED_DEALS, MOVES, BELOW = 16, 32, 32
CONVERSIONS = np.array([0, 0, 32])
PAIRING_TRIES = np.array([3, 4, 16])
LINKS = 12
MOST_SLOTS, LARGE = 16, 1024  # slots of a rank, and of all: squeezing takes their square
SMALL = 64  # slots; few items seldom come near the bound, and all that can be tried costs little


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
    held = np.empty((rows, num_ranks, slots_per_rank), np.int32)
    stages, within = np.zeros((rows, len(STAGES)), np.int64), np.empty(rows, np.bool_)
    names, bits = np.arange(experts), (experts - 1).bit_length()
    parts = min(2 * num_threads(threads), rows)  # blocks of rows, contiguous: other strides would be compiled anew
    edges = [rows * part // parts for part in range(parts + 1)]

    def plan(part: int) -> None:
        block = slice(edges[part], edges[part + 1])
        by_load = (~weight[block] << bits) | names  # load and expert share an integer, so that one sort orders both
        by_load.sort(axis=1)
        _plan_rows(by_load, bits, floor[block], max_gap, EFFORTS[effort], held[block], stages[block], within[block])

    for_each(plan, range(parts), threads)
    return held, stages, within


@native
def _plan_rows(by_load, bits, floor, max_gap, effort, held, stages, within):  # type: ignore[no-untyped-def]
    _, num_ranks, slots = held.shape
    experts = by_load.shape[1]
    weight, names = np.empty(experts, np.int64), np.empty(experts, np.int32)
    ranks, best = new_ranks(num_ranks, slots, experts), np.empty((num_ranks, slots), np.int64)
    replicas = np.empty(experts, np.int64)
    space = new_space(num_ranks, slots, experts, LINKS, num_ranks if _worth_squeezing(num_ranks, slots) else 0)
    for row in range(len(by_load)):
        for i in range(experts):
            weight[i], names[i] = ~(by_load[row, i] >> bits), by_load[row, i] & ((1 << bits) - 1)
        within[row] = _plan_row(weight, floor[row], max_gap, effort, ranks, best, replicas, space, stages[row])
        for g in range(num_ranks):
            for s in range(slots):
                held[row, g, s] = names[best[g, s]]


@native
def _plan_row(weight, floor, max_gap, effort, ranks, best, replicas, space, stages):  # type: ignore[no-untyped-def]
    """Fill ``best`` [ranks, slots] with the best placement found; return whether it meets the target."""
    num_ranks, slots = best.shape
    keys, spare = space.keys, space.spare
    largest = count_least_largest(weight, num_ranks * slots, num_ranks, ranks.replicas)
    bound = max(-(-weight.sum() // num_ranks), largest, floor)
    target = np.int64(bound * (1.0 + max_gap * (1.0 - 1e-9)))  # so that rounding cannot lift the gap above max_gap
    paired = _descend_first(weight, bound, target, max_gap, effort, ranks, space, stages)
    aim = reached = _keep(ranks, best, replicas)
    if slots == 1 or reached <= paired:
        return reached <= target
    for level in range(effort if slots == 2 else 0):  # pairs had to be parted, and less search may have parted fewer
        count_least_largest(weight, num_ranks * slots, num_ranks, ranks.replicas)
        _descend_first(weight, bound, target, max_gap, level, ranks, space, stages)
        if level == 0:
            aim = ranks.load[ranks.order[-1]]
        if ranks.load[ranks.order[-1]] < reached:
            reached = _keep(ranks, best, replicas)
    # Never worse than the plain answer; with two slots a rank ``fold`` has not left the order that this needs.
    if slots > 2 and reached > bound and deal_greedily(weight, ranks, keys, reached, ranks.expert, spare):
        separate(ranks.expert, weight)
        set_ranks(ranks, weight, keys, spare)
        _improve(ranks, target, reached, space, stages)
        if ranks.load[ranks.order[-1]] < reached:
            reached = _keep(ranks, best, replicas)
    small = num_ranks * slots <= SMALL
    if not small and slots > 2:
        aim = target  # where that is out of reach, the change that it asks for is too small
    harder = len(CONVERSIONS) - 1 if small and effort > 0 else effort
    reached = _relax(weight, bound, target, largest, aim, harder, reached, ranks, best, replicas, space, stages)
    if reached > target and effort > 0 and _worth_squeezing(num_ranks, slots):
        reached = _finish(weight, bound, target, largest, effort, reached, ranks, best, replicas, space, stages)
    reached = _convert(weight, target, harder, reached, ranks, best, replicas, space, stages)
    return reached <= target


@native
def _worth_squeezing(num_ranks, slots):  # type: ignore[no-untyped-def]
    """Whether squeezing costs little; with three slots it finds too few exchanges, with many it is not needed."""
    return 3 < slots <= MOST_SLOTS and num_ranks * slots <= LARGE


@native
def _relax(weight, bound, target, largest, aim, effort, reached, ranks, best, replicas, space, stages):  # type: ignore[no-untyped-def]
    """Start again from other counts; keep what is better than ``reached``, and return the busiest rank of the best."""
    num_ranks, slots = best.shape
    far, near = target + FAR * (target - bound), target + NEAR * (target - bound)
    skewed = 2 * largest > target
    relaxations, tries = (SKEWED, SKEWED_TRIES) if skewed else (LEVEL, LEVEL_TRIES)
    always = SKEWED_TRIES[effort] if skewed else LEVEL_ALWAYS[effort] + (slots > 3)
    for attempt in range(tries[effort]):
        if reached <= target or (attempt >= always and reached < far):
            break
        f, rule = relaxations[attempt]
        relaxed = largest + f * max(aim - largest, 1)
        count_relaxed(weight, num_ranks * slots, num_ranks, relaxed, target, np.int64(rule), ranks.replicas)
        fold(weight, ranks, space.keys, space.spare)
        _improve(ranks, target, reached, space, stages)
        if ranks.load[ranks.order[-1]] < reached:
            reached = _keep(ranks, best, replicas)
            stages[RELAXED] += 1
        may_squeeze = _worth_squeezing(num_ranks, slots) and target < ranks.load[ranks.order[-1]] <= near
        if may_squeeze and squeeze(ranks, target, space):
            reached = _keep(ranks, best, replicas)
            stages[SQUEEZED] += 1
    return reached


@native
def _finish(weight, bound, target, largest, effort, reached, ranks, best, replicas, space, stages):  # type: ignore[no-untyped-def]
    """Squeeze the best placement, then those of counts that give large replicas company.

    Where that fails, two replicas of each rank are dealt again, other two each time, and the ranks levelled and
    squeezed again; what does not come near the target at first is given up. Keeps what is better than ``reached``,
    and returns the busiest rank of the best. Squeezes to a little below the target, so that the mean over layers is
    within the gap though a few of them are not.
    """
    num_ranks, slots = best.shape
    near = target + NEAR * (target - bound)
    for attempt in range(-1, len(FITTED)):
        deals, before = FITTED_DEALS, reached
        if attempt < 0:
            deals = DEALS[effort]
            _restore(weight, ranks, best, replicas, space)
        else:
            f, rule = FITTED[attempt]
            relaxed = largest + f * max(target - largest, 1)
            count_relaxed(weight, num_ranks * slots, num_ranks, relaxed, target, np.int64(rule), ranks.replicas)
            find_company(weight, target, num_ranks, slots, MOVES, ranks.replicas)
            fold(weight, ranks, space.keys, space.spare)
        p = q = 0
        for deal in range(deals + 1):
            _improve(ranks, target, NEVER if deal == 0 else np.int64(0), space, stages)
            heaviest = ranks.load[ranks.order[-1]]
            if heaviest < reached:
                reached = _keep(ranks, best, replicas)
            if target < heaviest <= near and squeeze(ranks, target - (target - bound) // BELOW, space):
                reached = _keep(ranks, best, replicas)
                stages[SQUEEZED] += 1
            if reached <= target or (deal == 0 and heaviest > near):
                break
            if q == 0:
                p = p - 1 if p > 1 else slots - 1
                q = p
            q -= 1
            deal_again(ranks, weight, target, p, q, space)
        stages[FITTING] += attempt >= 0 and reached < before
        if reached <= target:
            break
    return reached


@native
def _convert(weight, target, effort, reached, ranks, best, replicas, space, stages):  # type: ignore[no-untyped-def]
    """Take single slots from one expert for another as long as that helps; return the busiest rank of the best."""
    for _ in range(CONVERSIONS[effort]):
        if reached <= target:
            break
        _restore(weight, ranks, best, replicas, space)
        if not convert(ranks, weight, target, space.keys, space.spare):
            break
        _improve(ranks, target, NEVER, space, stages)
        if ranks.load[ranks.order[-1]] >= reached:
            break
        reached = _keep(ranks, best, replicas)
        stages[CONVERTED] += 1
    return reached


@native
def _restore(weight, ranks, best, replicas, space):  # type: ignore[no-untyped-def]
    """Go back to the placement that was kept."""
    ranks.expert[:] = best
    ranks.replicas[:] = replicas
    set_ranks(ranks, weight, space.keys, space.spare)


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
    else:
        fold(weight, ranks, space.keys, space.spare)
    _improve(ranks, target, NEVER, space, stages)
    return paired


@native
def _keep(ranks, best, replicas):  # type: ignore[no-untyped-def]
    """Copy the placement of ``ranks`` and return its busiest rank."""
    best[:] = ranks.expert
    replicas[:] = ranks.replicas
    return ranks.load[ranks.order[-1]]


@native
def _improve(ranks, target, cutoff, space, stages):  # type: ignore[no-untyped-def]
    """Level the ranks until none is above the target or nothing helps the heaviest; cheap means come first.

    Gives up once neither swaps nor pairs bring the heaviest rank below ``cutoff``.
    """
    num_ranks, slots = ranks.expert.shape
    while True:
        stages[SWAPS] += descend(ranks, target, 1)
        heaviest = ranks.load[ranks.order[num_ranks - 1]]
        if heaviest <= target:
            return
        if slots > 3 and swap_pairs(ranks, target, space.sums):
            stages[PAIRS] += 1
            continue
        if heaviest >= cutoff:
            return
        others = descend(ranks, target, num_ranks)
        stages[SWAPS] += others
        if others == 0:
            if not chain(ranks, target, space.links):
                return
            stages[CHAINS] += 1
