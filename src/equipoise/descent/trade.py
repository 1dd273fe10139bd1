"""Trade slots between experts: other replica counts, one slot at a time, each judged by the placement it leads to.

A trade takes one slot from an expert that has several and gives it to another. On the spot it is worth what it does to
the excess, the sum over ranks of the squared load above the target; what it is worth in the end shows when the ranks
have been levelled again. So the best few on the spot are tried, the best of those after levelling is taken even where
the excess grows, and for a few steps its two experts may not trade back.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.improve import improve, keep, squared_excess
from equipoise.descent.squeeze import squeeze
from equipoise.descent.state import CONVERTED, copy_table, holds, set_ranks
from equipoise.kernels.native import native

__all__ = ["restore", "trade"]

TRIED = 4  # trades of each step that are tried
TENURE = 5  # steps for which an expert that gained a slot must not lose one, nor one that lost gain


@native
def trade(weight, target, near, most, ranks, best, space, stages):
    """Improve ``best`` [ranks, slots] by trades until no rank is above ``target`` or ``most`` were tried.

    What comes below ``near`` is squeezed. Returns the busiest rank of ``best``, which is never worse than before.
    """
    current, after = best.copy(), best.copy()
    start, where = np.empty(len(weight) + 1, np.int64), np.empty(best.size, np.int64)
    excess, found = np.empty(TRIED), np.empty((TRIED, 3), np.int64)
    gained, lost = np.full(len(weight), -TENURE), np.full(len(weight), -TENURE)  # the steps when each last did
    restore(weight, ranks, best, space)
    reached = ranks.load[ranks.order[-1]]
    tried = step = 0
    while reached > target and tried < most:
        _set_places(ranks, start, where)
        number = _find_trades(ranks, weight, target, start, where, gained, lost, step, excess, found)
        if number == 0:
            break
        least, chosen = np.inf, 0
        for i in range(number):
            if i > 0:
                restore(weight, ranks, current, space)
            _give(ranks, weight, found[i], space)
            improve(ranks, target, np.int64(0), space, stages)
            heaviest, left = ranks.load[ranks.order[-1]], _excess(ranks, target)
            if left < least:
                least, chosen = left, i
                keep(ranks, after)
            if heaviest < reached:
                reached = keep(ranks, best)
                stages[CONVERTED] += 1
            if target < heaviest <= near and squeeze(ranks, target, space):
                reached = keep(ranks, best)
            if reached <= target:
                return reached
        tried += number
        lost[found[chosen, 0]] = gained[found[chosen, 1]] = step
        copy_table(after, current)
        restore(weight, ranks, current, space)
        step += 1
    return reached


@native
def restore(weight, ranks, best, space):
    """Go back to the placement that was kept."""
    copy_table(best, ranks.expert)
    ranks.replicas[:] = 0
    for e in best.ravel():
        ranks.replicas[e] += 1
    set_ranks(ranks, weight, space.keys, space.spare)


@native
def _give(ranks, weight, change, space):
    """Give the slot of expert ``change[0]`` on rank ``change[2]`` to expert ``change[1]``."""
    b, a, h = change
    s = 0
    while ranks.expert[h, s] != b:
        s += 1
    ranks.expert[h, s] = a
    ranks.replicas[b] -= 1
    ranks.replicas[a] += 1
    set_ranks(ranks, weight, space.keys, space.spare)


@native
def _set_places(ranks, start, where):
    """Set ``where[start[e] : start[e + 1]]`` to the ranks that hold expert ``e``."""
    start[0] = 0
    for e in range(len(ranks.replicas)):
        start[e + 1] = start[e] + ranks.replicas[e]
    for g in range(len(ranks.expert)):
        for e in ranks.expert[g]:
            where[start[e]] = g
            start[e] += 1
    for e in range(len(ranks.replicas), 0, -1):
        start[e] = start[e - 1]
    start[0] = 0


@native
def _find_trades(ranks, weight, target, start, where, gained, lost, step, excess, found):
    """Set ``found`` to (loser, gainer, rank) of the trades that leave the least ``excess``, and return their number.

    An expert gains where it lies on a rank above the target, any does where the loser is on the heaviest rank. One
    rank is looked for per two experts: that where the slot is best given away.
    """
    expert, load, replicas = ranks.expert, ranks.load, ranks.replicas
    experts, heaviest = len(weight), ranks.order[-1]
    wanted, marked = np.zeros(experts, np.bool_), np.full(len(load), -1)
    for g in range(len(load)):
        if load[g] > target:
            for e in expert[g]:
                wanted[e] = True
    before, number = _excess(ranks, target), 0
    for b in range(experts):
        if replicas[b] < 2 or step < gained[b] + TENURE or weight[b] > target * (replicas[b] - 1):
            continue
        less, more = weight[b] // replicas[b], weight[b] // (replicas[b] - 1)
        without = before
        for h in where[start[b] : start[b + 1]]:
            marked[h] = b
            without += squared_excess(load[h] + more - less, target) - squared_excess(load[h], target)
        for a in range(experts):
            if a == b or replicas[a] >= len(load) or step < lost[a] + TENURE:
                continue
            if not wanted[a] and marked[heaviest] != b:
                continue
            own = weight[a] // (replicas[a] + 1)
            after = without
            for h in where[start[a] : start[a + 1]]:
                there = load[h] + (more - less if marked[h] == b else 0)
                after += squared_excess(there + own - weight[a] // replicas[a], target) - squared_excess(there, target)
            least, at = np.inf, -1
            for h in where[start[b] : start[b + 1]]:
                if not holds(expert[h], a):
                    given = (
                        after
                        + squared_excess(load[h] - less + own, target)
                        - squared_excess(load[h] + more - less, target)
                    )
                    if given < least:
                        least, at = given, h
            if at >= 0:
                number = _insert(least, b, a, at, number, excess, found)
    return number


@native
def _insert(least, b, a, h, number, excess, found):
    """Keep ``found`` the best trades, the best first; return how many there are."""
    if number == len(found):
        if least >= excess[number - 1]:
            return number
        number -= 1
    place = number
    while place > 0 and excess[place - 1] > least:
        excess[place] = excess[place - 1]
        found[place] = found[place - 1]
        place -= 1
    excess[place] = least
    found[place, 0], found[place, 1], found[place, 2] = b, a, h
    return number + 1


@native
def _excess(ranks, target):
    total = 0.0
    for load in ranks.load:
        total += squared_excess(load, target)
    return total
