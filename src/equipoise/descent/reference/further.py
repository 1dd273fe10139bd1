"""What is tried on layers that the first descent leaves above the target: other counts, squeezing, trades, and all."""

from __future__ import annotations

from equipoise.descent import tuning
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
from equipoise.descent.reference.counts import count_relaxed, set_target
from equipoise.descent.reference.exact import search_all
from equipoise.descent.reference.fold import fold
from equipoise.descent.reference.layer import Layer
from equipoise.descent.reference.squeeze import deal_again, squeeze
from equipoise.descent.reference.swaps import improve
from equipoise.descent.reference.trade import trade

__all__ = ["search_further"]


def search_further(layer: Layer, max_gap: float) -> None:
    """Improve the best placement of a layer that the first descent left above the target."""
    facts, num_slots = layer.facts, layer.num_ranks * layer.slots
    set_target(layer, max_gap)  # again: its floor may have been raised
    if facts[REACHED] <= facts[TARGET]:
        return
    small = num_slots <= tuning.SMALL
    aim = facts[AIM] if small or layer.slots == 2 else facts[TARGET]
    if _has_spare(layer) and not layer.skips(RELAXED):
        _relax(layer, aim, 2 if small else facts[EFFORT])
    if facts[REACHED] > facts[TARGET] and _worth_squeezing(layer):
        _finish(layer)
    if small and _has_spare(layer) and not layer.skips(TRADED):
        trade(layer, facts[TARGET], 0, tuning.SMALL_TRADES)
    few = num_slots <= tuning.FEW and layer.slots <= len(layer.weight)
    if facts[REACHED] > facts[TARGET] and few and not layer.skips(EXACT):
        search_all(layer, int(tuning.EXACT_STEPS[facts[EFFORT]]))


def _has_spare(layer: Layer) -> bool:
    """Whether there are other counts."""
    return layer.num_ranks * layer.slots > len(layer.weight)


def _worth_squeezing(layer: Layer) -> bool:
    """Whether squeezing costs little and finds something."""
    return 3 < layer.slots <= tuning.MOST_SLOTS and layer.num_ranks * layer.slots <= tuning.LARGE


def _room(layer: Layer) -> int:
    return layer.facts[TARGET] - layer.facts[BOUND]


def _start_again(layer: Layer, largest: float, target: int, rule: int) -> None:
    """Deal the replicas of other counts, whose largest replica may be ``largest``."""
    layer.set_counts(count_relaxed(layer, largest, target, rule))
    fold(layer)


def _relax(layer: Layer, aim: int, effort: int) -> None:
    """Start again from other counts; keep what is better than the best."""
    facts, slots = layer.facts, layer.slots
    largest, target, room = facts[LARGEST], facts[TARGET], _room(layer)
    squeezes = _worth_squeezing(layer) and not layer.skips(SQUEEZED)
    if 2 * largest > target:  # skewed
        shares, rules = tuning.SKEWED
        kind = tuning.STARTS_THREE if slots == 3 else tuning.STARTS_SQUEEZED if squeezes else tuning.STARTS_SKEWED
        goal = target - room // (tuning.RELAX_BELOW_THREE if slots == 3 else tuning.RELAX_BELOW)
        tries = always = int(tuning.STARTS[kind, effort])
    else:
        shares, rules = tuning.LEVEL
        goal = target
        tries = int(tuning.STARTS[tuning.STARTS_LEVEL, effort])
        always = int(tuning.ALWAYS[min(slots, 4) - 2, effort])
    for attempt in range(tries):
        far = facts[REACHED] >= target + tuning.FAR * room
        if facts[REACHED] <= target or (attempt >= always and not far):
            return
        if not layer.goes_on(50 * layer.num_ranks * slots):
            return
        _start_again(layer, largest + float(shares[attempt]) * max(aim - largest, 1), target, int(rules[attempt]))
        improve(layer, goal, facts[REACHED])
        facts[RELAXED] += layer.keep()
        if squeezes and target < layer.busiest() <= target + tuning.NEAR * room and squeeze(layer, goal):
            facts[SQUEEZED] += layer.keep()


def _finish(layer: Layer) -> None:
    """Polish the best placement, then what fitted starts lead to, then the best of all."""
    facts = layer.facts
    target, room = facts[TARGET], _room(layer)
    if not _has_spare(layer):
        _polish(layer, tuning.POLISH_PACKED)
        return
    _polish(layer, tuning.POLISH_FIRST)
    first = facts[REACHED]
    starts = 0 if layer.skips(FITTED) else int(tuning.STARTS[tuning.STARTS_FITTED, facts[EFFORT]])
    for share, rule, aim in list(zip(*tuning.FITTED, strict=True))[:starts]:
        if facts[REACHED] <= target or not layer.goes_on(50 * layer.num_ranks * layer.slots):
            break
        most = facts[BOUND] + int(aim) * room
        _start_again(layer, facts[LARGEST] + float(share) * max(most - facts[LARGEST], 1), most, int(rule))
        improve(layer, most, NEVER)
        champion, before = layer.best, facts[REACHED]
        facts[REACHED] = NEVER
        layer.keep()
        _polish(layer, tuning.POLISH_FITTED)
        if facts[REACHED] < before:
            facts[FITTED] += 1
        else:
            layer.best, facts[REACHED] = champion, before
    _polish(layer, tuning.POLISH_LAST)
    if facts[REACHED] < first:
        _polish(layer, tuning.POLISH_AGAIN)


def _polish(layer: Layer, row: int) -> None:
    """Improve the best placement by deals if it is near, then by trades; ``row`` of POLISH says how much of each."""
    facts = layer.facts
    target, room = facts[TARGET], _room(layer)
    near, deals, trades = tuning.POLISH[row, :, facts[EFFORT]].tolist()
    if target < facts[REACHED] <= target + near * room and not layer.skips(SQUEEZED):
        _deal(layer, deals)
    if facts[REACHED] > target and trades > 0 and not layer.skips(TRADED):
        squeezed_below = 0 if layer.skips(SQUEEZED) else target + tuning.TRADE_NEAR * room
        trade(layer, target - room // tuning.TRADE_BELOW, squeezed_below, trades)


def _deal(layer: Layer, deals: int) -> None:
    """Squeeze the best placement, deal two places of each rank again, level and squeeze that, other two each time."""
    facts, num_ranks, slots = layer.facts, layer.num_ranks, layer.slots
    target, room = facts[TARGET], _room(layer)
    goal = target - room // tuning.DEAL_BELOW
    # With four slots 3, 2; 3, 1; 3, 0; 2, 1; 2, 0; 1, 0; and again. The largest replicas come first.
    places = [(p, q) for p in range(slots - 1, 0, -1) for q in range(p - 1, -1, -1)]
    layer.restore(layer.best)
    for deal in range(deals + 1):
        if goal < layer.busiest() <= target + tuning.NEAR * room and squeeze(layer, goal):
            facts[SQUEEZED] += layer.keep()
        if facts[REACHED] <= target or deal == deals:
            return
        if not layer.goes_on(10 * num_ranks * slots + 2 * num_ranks**2):
            return
        deal_again(layer, goal, *places[deal % len(places)])
        improve(layer, goal, 0)
        layer.keep()
