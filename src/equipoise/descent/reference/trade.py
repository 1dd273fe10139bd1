"""Trade slots between experts: other replica counts, one slot at a time, each judged by what it leads to."""

from __future__ import annotations

import math
from bisect import insort

from equipoise.descent.facts import REACHED, TRADED
from equipoise.descent.reference.layer import Held, Layer, replica_cost
from equipoise.descent.reference.squeeze import squeeze
from equipoise.descent.reference.swaps import improve

__all__ = ["trade"]

TRIED = 4  # trades of each step that are tried
TENURE = 5  # steps for which an expert that gained a slot must not lose one, nor one that lost gain

Trade = tuple[int, int, int]
"""Who loses a slot, who gains it, and on which rank."""


def trade(layer: Layer, target: int, near: int, most: int) -> None:
    """Trade slots between experts until no rank is above ``target`` or ``most`` trades were tried.

    Of each step, the trades that look best are tried and levelled, and the one that is best then is gone on with, even
    where it is worse than before. What comes below ``near`` is squeezed; 0 for nothing.
    """
    facts, current = layer.facts, layer.best
    gained, lost = dict[int, int](), dict[int, int]()  # the step when each expert last did
    layer.restore(current)
    tried = step = 0
    while facts[REACHED] > target and tried < most and layer.goes_on():
        found = _find_trades(
            layer,
            target,
            {e for e, then in gained.items() if step < then + TENURE},
            {e for e, then in lost.items() if step < then + TENURE},
        )
        if not found:
            return
        least, chosen, after = math.inf, found[0], current
        for loser, gainer, h in found:
            layer.restore(current)
            layer.spend(20 * layer.num_ranks * layer.slots)
            changed = [list(rank) for rank in layer.held]
            changed[h][changed[h].index(loser)] = gainer
            layer.restore(changed)
            improve(layer, target, 0)
            left = _excess(layer.load, target)
            if left < least:
                least, chosen, after = left, (loser, gainer, h), [list(rank) for rank in layer.held]
            facts[TRADED] += layer.keep()
            if target < layer.busiest() <= near and squeeze(layer, target):
                layer.keep()
            if facts[REACHED] <= target:
                return
        tried += len(found)
        lost[chosen[0]] = gained[chosen[1]] = step
        current = after
        layer.restore(current)
        step += 1


def _find_trades(layer: Layer, target: int, fresh: set[int], poor: set[int]) -> list[Trade]:
    """Return the trades that leave the least excess, the best first: the squared load above the target, summed.

    An expert gains where it lies on a rank above the target, any does where the loser is on the heaviest rank; not
    those in ``poor``, as nobody in ``fresh`` loses. Of each two experts one rank is looked for: that where the slot is
    best given away. Sums of floats are in a fixed order.
    """
    weight, replicas, load, held = layer.weight, layer.replicas, layer.load, layer.held
    heaviest = layer.order()[-1]
    where: Held = [[g for g, rank in enumerate(held) for f in rank if f == e] for e in range(len(weight))]
    wanted = {e for g, rank in enumerate(held) if load[g] > target for e in rank}
    found: list[tuple[float, Trade]] = []
    before = _excess(load, target)
    for b in range(len(weight)):
        if replicas[b] < 2 or b in fresh or weight[b] > target * (replicas[b] - 1):
            continue
        if not layer.goes_on(5 * len(weight)):
            break
        less = replica_cost(weight[b], replicas[b])
        grown = replica_cost(weight[b], replicas[b] - 1) - less  # how much its other replicas get heavier
        without = before
        for h in where[b]:
            without += _squared(load[h] + grown, target) - _squared(load[h], target)
        for a in range(len(weight)):
            if a == b or replicas[a] >= layer.num_ranks or a in poor:
                continue
            if a not in wanted and heaviest not in where[b]:
                continue
            layer.spend(10 + 5 * replicas[a] + (5 + layer.slots) * replicas[b])
            own, once = replica_cost(weight[a], replicas[a] + 1), replica_cost(weight[a], replicas[a])
            after = without
            for h in where[a]:
                there = load[h] + (grown if h in where[b] else 0)
                after += _squared(there + own - once, target) - _squared(there, target)
            given = [
                (after + _squared(load[h] - less + own, target) - _squared(load[h] + grown, target), h)
                for h in where[b]
                if a not in held[h]
            ]
            if given:
                least, h = min(given)
                insort(found, (least, (b, a, h)), key=lambda each: each[0])
                del found[TRIED:]
    return [change for _, change in found]


def _squared(load: int, target: int) -> float:
    over = float(max(load - target, 0))
    return over * over


def _excess(load: list[int], target: int) -> float:
    total = 0.0
    for each in load:
        total += _squared(each, target)
    return total
