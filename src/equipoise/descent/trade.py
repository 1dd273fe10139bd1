"""Trade slots between experts: other replica counts, one slot at a time, each judged by the placement it leads to.

A trade takes one slot from an expert that has several and gives it to another. On the spot it is worth what it does to
the excess, the sum over ranks of the squared load above the target; what it is worth in the end shows when the ranks
have been levelled again. So the best few on the spot are tried, the best of those after levelling is taken even where
the excess grows, and for a few steps its two experts may not trade back.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.facts import REACHED, STEPS, TRADED
from equipoise.descent.layer import busiest, copy_table, goes_on, holds, keep, replica_cost, restore, set_ranks
from equipoise.descent.squeeze import squeeze
from equipoise.descent.swaps import improve
from equipoise.kernels.native import allocating, inlined, internal

__all__ = ["trade"]

TRIED = 4  # trades of each step that are tried
GAINED, LOST = 0, 1
TENURE = 5  # steps for which an expert that gained a slot must not lose one, nor one that lost gain


@allocating
def trade(layer, target, near, most):
    """Improve the best placement by trades until no rank is above ``target`` or ``most`` were tried.

    What comes below ``near`` is squeezed; 0 for nothing.
    """
    facts, best = layer.facts, layer.best
    current, after = best.copy(), best.copy()
    excess, found = np.empty(TRIED), np.empty((TRIED, 3), np.int64)
    tenure = np.full((2, len(layer.weight)), -TENURE)  # the steps when each expert last gained, and last lost
    restore(layer, best)
    tried = step = np.int64(0)
    while facts[REACHED] > target and tried < most and goes_on(layer, 0):
        number = _find_trades(layer, target, step, tenure, excess, found)
        if number == 0:
            break
        least, chosen = np.inf, 0
        for i in range(number):
            if i > 0:
                restore(layer, current)
            facts[STEPS] += 20 * best.size
            _give(layer, found[i])
            improve(layer, target, np.int64(0))
            left = _excess(layer.ranks, target)
            if left < least:
                least, chosen = left, i
                copy_table(layer.ranks.expert, after)
            facts[TRADED] += keep(layer)
            if target < busiest(layer) <= near and squeeze(layer, target):
                keep(layer)
            if facts[REACHED] <= target:
                return
        tried += number
        tenure[LOST, found[chosen, 0]] = tenure[GAINED, found[chosen, 1]] = step
        copy_table(after, current)
        restore(layer, current)
        step += 1


@internal
def _give(layer, change):
    """Give the slot of expert ``change[0]`` on rank ``change[2]`` to expert ``change[1]``."""
    expert, replicas = layer.ranks.expert, layer.ranks.replicas
    b, a, h = change
    s = 0
    while expert[h, s] != b:
        s += 1
    expert[h, s] = a
    replicas[b] -= 1
    replicas[a] += 1
    set_ranks(layer)


@internal
def _set_places(ranks, start, where):
    """Set ``where[start[e] : start[e + 1]]`` to the ranks that hold expert ``e``."""
    start[0] = 0
    for e in range(len(ranks.replicas)):
        start[e + 1] = start[e] + ranks.replicas[e]
    for g in range(ranks.expert.shape[0]):
        for e in ranks.expert[g]:
            where[start[e]] = g
            start[e] += 1
    for e in range(len(ranks.replicas), 0, -1):
        start[e] = start[e - 1]
    start[0] = 0


@allocating
def _find_trades(layer, target, step, tenure, excess, found):
    """Set ``found`` to (loser, gainer, rank) of the trades that leave the least ``excess``, and return their number.

    An expert gains where it lies on a rank above the target, any does where the loser is on the heaviest rank. One
    rank is looked for per two experts: that where the slot is best given away.
    """
    weight, ranks = layer.weight, layer.ranks
    expert, load, replicas = ranks.expert, ranks.load, ranks.replicas
    experts, (num_ranks, slots), heaviest = len(weight), expert.shape, ranks.order[-1]
    start, where = np.empty(experts + 1, np.int64), np.empty(expert.size, np.int64)
    _set_places(ranks, start, where)
    wanted, marked = np.zeros(experts, np.bool_), np.full(num_ranks, -1)
    for g in range(num_ranks):
        if load[g] > target:
            for e in expert[g]:
                wanted[e] = True
    before, number = _excess(ranks, target), np.int64(0)
    for b in range(experts):
        if replicas[b] < 2 or step < tenure[GAINED, b] + TENURE or weight[b] > target * (replicas[b] - 1):
            continue
        if not goes_on(layer, 5 * experts):
            break
        less, more = replica_cost(weight, b, replicas[b]), replica_cost(weight, b, replicas[b] - 1)
        without = before
        for h in where[start[b] : start[b + 1]]:
            marked[h] = b
            without += _squared(load[h] + more - less, target) - _squared(load[h], target)
        for a in range(experts):
            if a == b or replicas[a] >= num_ranks or step < tenure[LOST, a] + TENURE:
                continue
            if not wanted[a] and marked[heaviest] != b:
                continue
            layer.facts[STEPS] += 10 + 5 * replicas[a] + (5 + slots) * replicas[b]
            own, once = replica_cost(weight, a, replicas[a] + 1), replica_cost(weight, a, replicas[a])
            after = without
            for h in where[start[a] : start[a + 1]]:
                there = load[h] + (more - less if marked[h] == b else 0)
                after += _squared(there + own - once, target) - _squared(there, target)
            least, at = np.inf, np.int64(-1)
            for h in where[start[b] : start[b + 1]]:
                if not holds(expert, h, a):
                    given = after + _squared(load[h] - less + own, target) - _squared(load[h] + more - less, target)
                    if given < least:
                        least, at = given, h
            if at >= 0:
                number = _insert(least, (b, a, at), number, excess, found)
    return number


@internal
def _insert(least, change, number, excess, found):
    """Keep ``found`` the best trades, the best first; return how many there are."""
    if number == len(found):
        if least >= excess[number - 1]:
            return number
        number -= 1
    place = number
    while place > 0 and excess[place - 1] > least:
        excess[place] = excess[place - 1]
        for i in range(3):
            found[place, i] = found[place - 1, i]
        place -= 1
    excess[place] = least
    found[place, 0], found[place, 1], found[place, 2] = change
    return number + 1


@inlined
def _squared(load, target):
    """Return the square of what a rank carries above ``target``."""
    over = np.float64(max(load - target, 0))
    return over * over


@internal
def _excess(ranks, target):
    total = 0.0
    for load in ranks.load:
        total += _squared(load, target)
    return total
