"""What is tried on rows that the first descent leaves above the target: other counts, squeezing, conversions."""

from __future__ import annotations

import numpy as np

from equipoise.bounds.hottest import DOMINATES, raise_bound
from equipoise.descent.company import find_company
from equipoise.descent.exact import search_all
from equipoise.descent.improve import convert, improve, keep
from equipoise.descent.squeeze import deal_again, squeeze
from equipoise.descent.start import count_relaxed, fold, set_target
from equipoise.descent.state import (
    CONVERTED,
    FEW,
    FITTING,
    NEVER,
    RELAXED,
    SQUEEZED,
    copy_table,
    new_ranks,
    new_space,
    unpack,
)
from equipoise.descent.trade import restore, trade
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
FIRST_TRIES = np.array([0, 5, len(SKEWED)])  # of SKEWED where squeezing is worth it: more comes later
# With 2, 3 and more slots a rank; then only while far: what is nearly level needs other means, not counts.
LEVEL_ALWAYS = np.array([[0, 1, len(LEVEL)], [0, 0, len(LEVEL)], [0, 2, len(LEVEL)]])
FAR, NEAR = 3, 16  # above the target, in room between bound and target: other counts are tried, squeezing is worth it
# Part of that room by which search goes on below the target, by means: then the mean is within, though a layer is not.
RELAX_BELOW, DEAL_BELOW, TRADE_BELOW = 8, 32, 16
DEALS, NEAR_DEALS = np.array([0, 64, 128]), 4  # of the best placement, if it is so near
TRADES, NEAR_TRADES = np.array([0, 52, 200]), 2  # from the best placement; what comes so near is squeezed
# Starts with company, as in SKEWED, and how far above the bound their busiest rank may be, in the same room: counts
# that leave some slack often lead to the target, though those made for it do not.
FITTED = np.array(
    [(0.08, 0, 2), (0.3, 1, 8), (0.72, 3, 4), (1.0, 1, 16), (0.96, 3, 2), (0.6, 0, 8), (0.92, 0, 4), (0.84, 3, 1)]
    + [(f, rule, aim) for aim in (4, 16, 1) for f, rule in ((0.08, 0), (0.96, 3), (0.6, 0), (0.92, 0), (0.84, 3))]
)  # fmt: skip
LAST_DEALS, LAST_TRADES = 32, np.array([0, 200, 400])
FITTED_TRIES, FITTED_DEALS, FITTED_TRADES, MOVES = np.array([0, 8, len(FITTED)]), 8, 24, 32
CONVERSIONS = np.array([0, 0, 32])
MOST_SLOTS, LARGE = 16, 1024  # slots of a rank, and of all: squeezing takes their square
STEPS = np.array([0, 12_000, 200_000])  # of 75 ns, where slots are so few that all is tried
SMALL = 64  # slots; few items seldom come near the bound, and all that can be tried costs little


@native
def search_rows(by_load, bits, floor, max_gap, effort, aims, target, held, busiest, stages):
    """Improve the placements in ``held``; ``aims`` int64 [rows], what other counts strive for where slots are few.

    Sets ``target`` anew, which a better bound may raise.
    """
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
        busiest[row], target[row] = _search_row(
            weight, floor[row], max_gap, effort, aims[row], ranks, best, space, stages[row]
        )
        for g in range(num_ranks):
            for s in range(slots):
                held[row, g, s] = names[best[g, s]]


@native
def _search_row(weight, floor, max_gap, effort, aim, ranks, best, space, stages):
    """Improve ``best`` [ranks, slots]; return its busiest rank and the target."""
    num_ranks, slots = best.shape
    largest, bound, target = set_target(weight, num_ranks, slots, floor, max_gap, ranks.replicas)
    restore(weight, ranks, best, space)
    reached = ranks.load[ranks.order[-1]]
    if DOMINATES * weight[0] >= weight.sum():  # then no plan may come near the mean: aim for what is possible
        raised = raise_bound(weight.astype(np.float64), np.float64(bound), np.float64(reached), num_ranks, slots)
        largest, bound, target = set_target(weight, num_ranks, slots, np.int64(raised), max_gap, ranks.replicas)
        restore(weight, ranks, best, space)
        if reached <= target:
            return reached, target
    small = num_ranks * slots <= SMALL
    if not small and slots > 2:
        aim = target  # where that is out of reach, the change that it asks for is too small
    harder = len(CONVERSIONS) - 1 if small else effort
    reached = _relax(weight, bound, target, largest, aim, harder, reached, ranks, best, space, stages)
    if reached > target and _worth_squeezing(num_ranks, slots):
        reached = _finish(weight, bound, target, largest, effort, reached, ranks, best, space, stages)
    reached = _convert(weight, target, harder, reached, ranks, best, space, stages)
    if reached > target and num_ranks * slots <= FEW and slots <= len(weight):
        reached = search_all(weight, target, reached, STEPS[effort], best)
    return reached, target


@native
def _worth_squeezing(num_ranks, slots):
    """Whether squeezing costs little; with three slots it finds too few exchanges, with many it is not needed."""
    return 3 < slots <= MOST_SLOTS and num_ranks * slots <= LARGE


@native
def _relax(weight, bound, target, largest, aim, effort, reached, ranks, best, space, stages):
    """Start again from other counts; keep what is better than ``reached``, and return the busiest rank of the best."""
    num_ranks, slots = best.shape
    far, near = target + FAR * (target - bound), target + NEAR * (target - bound)
    skewed = 2 * largest > target
    relaxations, tries, goal = LEVEL, LEVEL_TRIES, target
    if skewed:
        relaxations, goal = SKEWED, target - (target - bound) // RELAX_BELOW
        tries = THREE_TRIES if slots == 3 else FIRST_TRIES if _worth_squeezing(num_ranks, slots) else SKEWED_TRIES
    always = tries[effort] if skewed else LEVEL_ALWAYS[min(slots, 4) - 2, effort]
    for attempt in range(tries[effort]):
        if reached <= target or (attempt >= always and reached < far):
            break
        f, rule = relaxations[attempt]
        relaxed = largest + f * max(aim - largest, 1)
        count_relaxed(weight, num_ranks * slots, num_ranks, relaxed, target, np.int64(rule), ranks.replicas)
        fold(weight, ranks, space.keys, space.spare)
        improve(ranks, goal, reached, space, stages)
        if ranks.load[ranks.order[-1]] < reached:
            reached = keep(ranks, best)
            stages[RELAXED] += 1
        may_squeeze = _worth_squeezing(num_ranks, slots) and target < ranks.load[ranks.order[-1]] <= near
        if may_squeeze and squeeze(ranks, goal, space):
            reached = keep(ranks, best)
            stages[SQUEEZED] += 1
    return reached


@native
def _finish(weight, bound, target, largest, effort, reached, ranks, best, space, stages):
    """Deal and trade from the best placement, then from starts whose counts give large replicas company, then again.

    Keeps what is better than ``reached``, and returns the busiest rank of the best.
    """
    num_ranks, slots = best.shape
    room, deals, trades = target - bound, DEALS[effort], TRADES[effort]
    reached = _polish(weight, bound, target, NEAR_DEALS, deals, trades, reached, ranks, best, space, stages)
    first, other = reached, best.copy()
    for attempt in range(FITTED_TRIES[effort]):
        if reached <= target:
            break
        f, rule, aim = FITTED[attempt]
        most = bound + np.int64(aim) * room
        relaxed = largest + f * max(most - largest, 1)
        count_relaxed(weight, num_ranks * slots, num_ranks, relaxed, most, np.int64(rule), ranks.replicas)
        find_company(weight, most, num_ranks, slots, MOVES, ranks.replicas)
        fold(weight, ranks, space.keys, space.spare)
        improve(ranks, most, NEVER, space, stages)
        heaviest = keep(ranks, other)
        heaviest = _polish(
            weight, bound, target, NEAR, FITTED_DEALS, FITTED_TRADES, heaviest, ranks, other, space, stages
        )
        if heaviest < reached:
            reached = heaviest
            copy_table(other, best)
            stages[FITTING] += 1
    if reached > target:
        reached = _polish(weight, bound, target, 0, 0, LAST_TRADES[effort], reached, ranks, best, space, stages)
    if reached < first:
        reached = _polish(weight, bound, target, NEAR_DEALS, LAST_DEALS, 0, reached, ranks, best, space, stages)
    return reached


@native
def _polish(weight, bound, target, near, deals, trades, reached, ranks, best, space, stages):
    """Improve ``best`` by deals if it is ``near``, then by trades; return what it reaches, at first ``reached``."""
    room, goal = target - bound, target - (target - bound) // TRADE_BELOW
    if target < reached <= target + near * room:
        reached = _deal(weight, bound, target, deals, reached, ranks, best, space, stages)
    if reached > target:
        reached = trade(weight, goal, goal + NEAR_TRADES * room, trades, ranks, best, space, stages)
    return reached


@native
def _deal(weight, bound, target, deals, reached, ranks, best, space, stages):
    """Squeeze the best placement, deal two replicas of each rank again, level and squeeze that, other two each time.

    Keeps what is better than ``reached``, and returns the busiest rank of the best.
    """
    slots = best.shape[1]
    near, goal = target + NEAR * (target - bound), target - (target - bound) // DEAL_BELOW
    restore(weight, ranks, best, space)
    p = q = 0
    for deal in range(deals + 1):
        if goal < ranks.load[ranks.order[-1]] <= near and squeeze(ranks, goal, space):
            reached = keep(ranks, best)
            stages[SQUEEZED] += 1
        if reached <= target or deal == deals:
            break
        if q == 0:
            p = p - 1 if p > 1 else slots - 1
            q = p
        q -= 1
        deal_again(ranks, weight, goal, p, q, space)
        improve(ranks, goal, np.int64(0), space, stages)
        if ranks.load[ranks.order[-1]] < reached:
            reached = keep(ranks, best)
    return reached


@native
def _convert(weight, target, effort, reached, ranks, best, space, stages):
    """Take single slots from one expert for another as long as that helps; return the busiest rank of the best."""
    for _ in range(CONVERSIONS[effort]):
        if reached <= target:
            break
        restore(weight, ranks, best, space)
        if not convert(ranks, weight, target, space.keys, space.spare):
            break
        improve(ranks, target, NEVER, space, stages)
        if ranks.load[ranks.order[-1]] >= reached:
            break
        reached = keep(ranks, best)
        stages[CONVERTED] += 1
    return reached
