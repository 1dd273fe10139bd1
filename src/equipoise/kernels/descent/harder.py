"""What is tried on rows that the first descent leaves above the target: other counts, squeezing, conversions."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.descent.company import find_company
from equipoise.kernels.descent.improve import convert, improve, keep
from equipoise.kernels.descent.squeeze import deal_again, squeeze
from equipoise.kernels.descent.start import count_relaxed, fold, set_target
from equipoise.kernels.descent.state import (
    CONVERTED,
    FITTING,
    NEVER,
    RELAXED,
    SQUEEZED,
    new_ranks,
    new_space,
    set_ranks,
    unpack,
)
from equipoise.kernels.native import native

__all__ = ["search_rows"]

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
THREE_TRIES = np.array([0, 25, len(SKEWED)])  # of SKEWED with three slots a rank, which are not squeezed
# With 2, 3 and more slots a rank; then only while far: what is nearly level needs other means, not counts.
LEVEL_ALWAYS = np.array([[0, 1, len(LEVEL)], [0, 0, len(LEVEL)], [0, 2, len(LEVEL)]])
FAR, NEAR = 3, 16  # above the target, in room between bound and target: other counts are tried, squeezing is worth it
DEALS = np.array([0, 64, 128])
FITTED = np.array([(0.08, 0), (0.3, 1), (0.72, 3), (1.0, 1), (0.96, 3), (0.6, 0), (0.92, 0), (0.84, 3)])
FITTED_DEALS, MOVES, BELOW = 16, 32, 32
CONVERSIONS = np.array([0, 0, 32])
MOST_SLOTS, LARGE = 16, 1024  # slots of a rank, and of all: squeezing takes their square
SMALL = 64  # slots; few items seldom come near the bound, and all that can be tried costs little


@native
def search_rows(by_load, bits, floor, max_gap, effort, aims, held, busiest, stages):  # type: ignore[no-untyped-def]
    """Improve the placements in ``held``; ``aims`` int64 [rows], what other counts strive for where slots are few."""
    _, num_ranks, slots = held.shape
    experts = by_load.shape[1]
    weight, names, numbers = np.empty(experts, np.int64), np.empty(experts, np.int32), np.empty(1 << bits, np.int64)
    ranks, best = new_ranks(num_ranks, slots, experts), np.empty((num_ranks, slots), np.int64)
    space = new_space(num_ranks, slots, experts, num_ranks if _worth_squeezing(num_ranks, slots) else 0)
    for row in range(len(by_load)):
        unpack(by_load[row], bits, weight, names)
        for i in range(experts):
            numbers[names[i]] = i
        for g in range(num_ranks):
            for s in range(slots):
                best[g, s] = numbers[held[row, g, s]]
        busiest[row] = _search_row(weight, floor[row], max_gap, effort, aims[row], ranks, best, space, stages[row])
        for g in range(num_ranks):
            for s in range(slots):
                held[row, g, s] = names[best[g, s]]


@native
def _search_row(weight, floor, max_gap, effort, aim, ranks, best, space, stages):  # type: ignore[no-untyped-def]
    """Improve ``best`` [ranks, slots]; return its busiest rank."""
    num_ranks, slots = best.shape
    largest, bound, target = set_target(weight, num_ranks, slots, floor, max_gap, ranks.replicas)
    _restore(weight, ranks, best, space)
    reached = ranks.load[ranks.order[-1]]
    small = num_ranks * slots <= SMALL
    if not small and slots > 2:
        aim = target  # where that is out of reach, the change that it asks for is too small
    harder = len(CONVERSIONS) - 1 if small else effort
    reached = _relax(weight, bound, target, largest, aim, harder, reached, ranks, best, space, stages)
    if reached > target and _worth_squeezing(num_ranks, slots):
        reached = _finish(weight, bound, target, largest, effort, reached, ranks, best, space, stages)
    return _convert(weight, target, harder, reached, ranks, best, space, stages)


@native
def _worth_squeezing(num_ranks, slots):  # type: ignore[no-untyped-def]
    """Whether squeezing costs little; with three slots it finds too few exchanges, with many it is not needed."""
    return 3 < slots <= MOST_SLOTS and num_ranks * slots <= LARGE


@native
def _relax(weight, bound, target, largest, aim, effort, reached, ranks, best, space, stages):  # type: ignore[no-untyped-def]
    """Start again from other counts; keep what is better than ``reached``, and return the busiest rank of the best."""
    num_ranks, slots = best.shape
    far, near = target + FAR * (target - bound), target + NEAR * (target - bound)
    skewed = 2 * largest > target
    relaxations, tries = (SKEWED, THREE_TRIES if slots == 3 else SKEWED_TRIES) if skewed else (LEVEL, LEVEL_TRIES)
    always = tries[effort] if skewed else LEVEL_ALWAYS[min(slots, 4) - 2, effort]
    for attempt in range(tries[effort]):
        if reached <= target or (attempt >= always and reached < far):
            break
        f, rule = relaxations[attempt]
        relaxed = largest + f * max(aim - largest, 1)
        count_relaxed(weight, num_ranks * slots, num_ranks, relaxed, target, np.int64(rule), ranks.replicas)
        fold(weight, ranks, space.keys, space.spare)
        improve(ranks, target, reached, space, stages)
        if ranks.load[ranks.order[-1]] < reached:
            reached = keep(ranks, best)
            stages[RELAXED] += 1
        may_squeeze = _worth_squeezing(num_ranks, slots) and target < ranks.load[ranks.order[-1]] <= near
        if may_squeeze and squeeze(ranks, target, space):
            reached = keep(ranks, best)
            stages[SQUEEZED] += 1
    return reached


@native
def _finish(weight, bound, target, largest, effort, reached, ranks, best, space, stages):  # type: ignore[no-untyped-def]
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
            _restore(weight, ranks, best, space)
        else:
            f, rule = FITTED[attempt]
            relaxed = largest + f * max(target - largest, 1)
            count_relaxed(weight, num_ranks * slots, num_ranks, relaxed, target, np.int64(rule), ranks.replicas)
            find_company(weight, target, num_ranks, slots, MOVES, ranks.replicas)
            fold(weight, ranks, space.keys, space.spare)
        p = q = 0
        for deal in range(deals + 1):
            improve(ranks, target, NEVER if deal == 0 else np.int64(0), space, stages)
            heaviest = ranks.load[ranks.order[-1]]
            if heaviest < reached:
                reached = keep(ranks, best)
            if target < heaviest <= near and squeeze(ranks, target - (target - bound) // BELOW, space):
                reached = keep(ranks, best)
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
def _convert(weight, target, effort, reached, ranks, best, space, stages):  # type: ignore[no-untyped-def]
    """Take single slots from one expert for another as long as that helps; return the busiest rank of the best."""
    for _ in range(CONVERSIONS[effort]):
        if reached <= target:
            break
        _restore(weight, ranks, best, space)
        if not convert(ranks, weight, target, space.keys, space.spare):
            break
        improve(ranks, target, NEVER, space, stages)
        if ranks.load[ranks.order[-1]] >= reached:
            break
        reached = keep(ranks, best)
        stages[CONVERTED] += 1
    return reached


@native
def _restore(weight, ranks, best, space):  # type: ignore[no-untyped-def]
    """Go back to the placement that was kept."""
    ranks.expert[:] = best
    ranks.replicas[:] = 0
    for e in best.ravel():
        ranks.replicas[e] += 1
    set_ranks(ranks, weight, space.keys, space.spare)
