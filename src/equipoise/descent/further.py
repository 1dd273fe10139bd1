"""What is tried on layers that the first descent leaves above the target: other counts, squeezing, trades, and all."""

from __future__ import annotations

import numpy as np

from equipoise.descent import tuning
from equipoise.descent.company import find_company
from equipoise.descent.counts import count_relaxed, set_target
from equipoise.descent.exact import search_all
from equipoise.descent.facts import (
    AIM,
    BOUND,
    EFFORT,
    EXACT,
    FITTED,
    LARGEST,
    NEVER,
    REACHED,
    RELAXED,
    SQUEEZED,
    TARGET,
    TRADED,
)
from equipoise.descent.fold import fold
from equipoise.descent.layer import (
    busiest,
    copy_table,
    goes_on,
    keep,
    new_layer,
    read_layer,
    restore,
    skips,
    write_layer,
)
from equipoise.descent.squeeze import deal_again, squeeze
from equipoise.descent.swaps import improve
from equipoise.descent.trade import trade
from equipoise.kernels.native import allocating, internal, native

__all__ = ["search_rows"]

SKEWED_SHARE, SKEWED_RULE = tuning.SKEWED
LEVEL_SHARE, LEVEL_RULE = tuning.LEVEL
FITTED_SHARE, FITTED_RULE, FITTED_AIM = tuning.FITTED


@native
def search_rows(by_load, bits, max_gap, facts, held, stop):
    """Improve the placements in ``held`` [rows, ranks, slots]; ``facts`` [rows, NUM_FACTS] is read and set."""
    _, num_ranks, slots = held.shape
    experts = by_load.shape[1]
    numbers = np.empty(1 << bits, np.int64)
    layer = new_layer(num_ranks, slots, experts, num_ranks if _worth_squeezing(num_ranks, slots) else 0, stop)
    for row in range(len(by_load)):
        read_layer(layer, by_load[row], bits, facts[row])
        for i in range(experts):
            numbers[by_load[row, i] & ((1 << bits) - 1)] = i
        for g in range(num_ranks):
            for s in range(slots):
                layer.best[g, s] = numbers[held[row, g, s]]
        _search(layer, max_gap)
        write_layer(layer, by_load[row], bits, facts[row], held[row])


@internal
def _search(layer, max_gap):
    """Improve the best placement of a layer."""
    weight, facts = layer.weight, layer.facts
    num_ranks, slots = layer.best.shape
    aim = facts[AIM]
    set_target(layer, max_gap)  # again: its floor may have been raised
    if facts[REACHED] <= facts[TARGET]:
        return
    small = num_ranks * slots <= tuning.SMALL
    if not small and slots > 2:
        aim = facts[TARGET]  # where that is out of reach, the change that it asks for is too small
    spare = layer.best.size > len(weight)  # without a spare slot there are no other counts
    if spare and not skips(layer, RELAXED):
        _relax(layer, aim, 2 if small else facts[EFFORT])
    if facts[REACHED] > facts[TARGET] and _worth_squeezing(num_ranks, slots):
        _finish(layer)
    if small and spare and not skips(layer, TRADED):
        trade(layer, facts[TARGET], np.int64(0), np.int64(tuning.SMALL_TRADES))
    few = num_ranks * slots <= tuning.FEW and slots <= len(weight)
    if facts[REACHED] > facts[TARGET] and few and not skips(layer, EXACT):
        search_all(layer, tuning.EXACT_STEPS[facts[EFFORT]])


@internal
def _worth_squeezing(num_ranks, slots):
    """Whether squeezing costs little; with three slots it finds too few exchanges, with many it is not needed."""
    return 3 < slots <= tuning.MOST_SLOTS and num_ranks * slots <= tuning.LARGE


@internal
def _relax(layer, aim, effort):
    """Start again from other counts; keep what is better than the best."""
    facts = layer.facts
    num_ranks, slots = layer.best.shape
    largest, target, room = facts[LARGEST], facts[TARGET], facts[TARGET] - facts[BOUND]
    squeezes = _worth_squeezing(num_ranks, slots) and not skips(layer, SQUEEZED)
    skewed = 2 * largest > target
    shares, rules, goal = LEVEL_SHARE, LEVEL_RULE, target
    tries, always = tuning.STARTS[tuning.STARTS_LEVEL, effort], tuning.ALWAYS[min(slots, 4) - 2, effort]
    if skewed:
        kind = tuning.STARTS_THREE if slots == 3 else tuning.STARTS_SQUEEZED if squeezes else tuning.STARTS_SKEWED
        shares, rules = SKEWED_SHARE, SKEWED_RULE
        goal = target - room // (tuning.RELAX_BELOW_THREE if slots == 3 else tuning.RELAX_BELOW)
        tries = always = tuning.STARTS[kind, effort]
    for attempt in range(tries):
        far = facts[REACHED] >= target + tuning.FAR * room
        if facts[REACHED] <= target or (attempt >= always and not far) or not goes_on(layer, 50 * layer.best.size):
            break
        relaxed = largest + shares[attempt] * max(aim - largest, 1)
        count_relaxed(layer, relaxed, target, rules[attempt])
        fold(layer)
        improve(layer, goal, facts[REACHED])
        facts[RELAXED] += keep(layer)
        if squeezes and target < busiest(layer) <= target + tuning.NEAR * room and squeeze(layer, goal):
            facts[SQUEEZED] += keep(layer)


@allocating
def _finish(layer):
    """Polish the best placement, then what fitted starts lead to, then the best of all."""
    facts, best = layer.facts, layer.best
    target, room = facts[TARGET], facts[TARGET] - facts[BOUND]
    if best.size == len(layer.weight):
        _polish(layer, tuning.POLISH_PACKED)
        return
    _polish(layer, tuning.POLISH_FIRST)
    first, champion = facts[REACHED], best.copy()
    starts = 0 if skips(layer, FITTED) else tuning.STARTS[tuning.STARTS_FITTED, facts[EFFORT]]
    for attempt in range(starts):
        if facts[REACHED] <= target or not goes_on(layer, 50 * best.size):
            break
        most = facts[BOUND] + FITTED_AIM[attempt] * room
        relaxed = facts[LARGEST] + FITTED_SHARE[attempt] * max(most - facts[LARGEST], 1)
        count_relaxed(layer, relaxed, most, FITTED_RULE[attempt])
        find_company(layer, most)
        fold(layer)
        improve(layer, most, NEVER)
        before = facts[REACHED]
        facts[REACHED] = NEVER
        keep(layer)
        _polish(layer, tuning.POLISH_FITTED)
        if facts[REACHED] < before:
            copy_table(best, champion)
            facts[FITTED] += 1
        else:
            copy_table(champion, best)
            facts[REACHED] = before
    _polish(layer, tuning.POLISH_LAST)
    if facts[REACHED] < first:
        _polish(layer, tuning.POLISH_AGAIN)


@internal
def _polish(layer, row):
    """Improve the best placement by deals if it is near, then by trades; ``row`` of POLISH says how much of each."""
    facts = layer.facts
    effort, target, room = facts[EFFORT], facts[TARGET], facts[TARGET] - facts[BOUND]
    near, deals, trades = tuning.POLISH[row, 0, effort], tuning.POLISH[row, 1, effort], tuning.POLISH[row, 2, effort]
    if target < facts[REACHED] <= target + near * room and not skips(layer, SQUEEZED):
        _deal(layer, deals)
    if facts[REACHED] > target and trades > 0 and not skips(layer, TRADED):
        squeezed_below = 0 if skips(layer, SQUEEZED) else target + tuning.TRADE_NEAR * room
        trade(layer, target - room // tuning.TRADE_BELOW, squeezed_below, trades)


@internal
def _deal(layer, deals):
    """Squeeze the best placement, deal two replicas of each rank again, level and squeeze that, other two each time."""
    facts, slots = layer.facts, layer.best.shape[1]
    target, room = facts[TARGET], facts[TARGET] - facts[BOUND]
    goal = target - room // tuning.DEAL_BELOW
    restore(layer, layer.best)
    p = q = 0
    for deal in range(deals + 1):
        if goal < busiest(layer) <= target + tuning.NEAR * room and squeeze(layer, goal):
            facts[SQUEEZED] += keep(layer)
        if (
            facts[REACHED] <= target
            or deal == deals
            or not goes_on(layer, 10 * layer.best.size + 2 * len(layer.best) ** 2)
        ):
            break
        if q == 0:
            p = p - 1 if p > 1 else slots - 1
            q = p
        q -= 1
        deal_again(layer, goal, p, q)
        improve(layer, goal, np.int64(0))
        keep(layer)
