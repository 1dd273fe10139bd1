"""Swaps and chains of two swaps, searched among all replicas of the row at once.

A rank that carries d too much for its own good has to swap a replica for one that is about d lighter. With all
replicas in line by load, those lie side by side, whatever ranks they are on: where ranks are nearly level, a few
candidates, while a look at every rank costs as much as there are ranks.
"""

from __future__ import annotations

from equipoise.descent.state import CHAINS, SWAPS, bits_for, exchange, sort_ascending
from equipoise.kernels.native import inlined, native

__all__ = ["level"]

FIRST = 16  # first swaps of each replica that a chain begins with
FAR = 8  # a rank stuck above the cutoff by one part in so many of what that is above the target is given up


@native
def level(ranks, target, cutoff, space, stages):
    """Swap, and where no swap is left chain swaps, until no rank is above ``target`` or the heaviest is stuck.

    Tries no chains for a heaviest rank of ``cutoff`` or more. Returns how often something was swapped.
    """
    load, order, line = ranks.load, ranks.order, space.line
    _line_up(ranks, line, space.keys, space.spare)
    changes = 0
    while True:
        swaps = _swap_all(ranks, line, target, cutoff)
        stages[SWAPS] += swaps
        changes += swaps
        heaviest = load[order[len(order) - 1]]
        if heaviest <= target or heaviest >= cutoff or not _chain(ranks, line, target):
            return changes
        stages[CHAINS] += 1
        changes += 1


@native
def _line_up(ranks, line, keys, spare):
    """Set ``line`` from ``ranks``."""
    value, expert, replicas = ranks.value, ranks.expert, ranks.replicas
    num_ranks, slots = expert.shape
    experts = len(replicas)
    bits = bits_for(experts)
    for g in range(num_ranks):
        for s in range(slots):
            line.each[expert[g, s]] = value[g, s]
    for i in range(experts):  # from the coldest on: only experts with replicas are out of order
        e = experts - 1 - i
        keys[i] = (line.each[e] << bits) | e
    sort_ascending(keys[:experts], spare)
    at = 0
    for i in range(experts):
        e = keys[i] & ((1 << bits) - 1)
        line.first[e] = at
        for p in range(at, at + replicas[e]):
            line.value[p], line.expert[p] = keys[i] >> bits, e
        at += replicas[e]
    for g in range(num_ranks):
        for s in range(slots):
            line.owner[line.first[expert[g, s]]] = g
            line.first[expert[g, s]] += 1
    for e in range(experts):
        line.first[e] -= replicas[e]


@native
def _swap_all(ranks, line, target, cutoff):
    """Swap until no rank above ``target`` has a swap left; return the swaps.

    The heaviest rank comes first, then the next heaviest: a rank that is stuck may come free when others have changed.
    Gives up where the heaviest is stuck well above ``cutoff``.
    """
    load, order = ranks.load, ranks.order
    swaps = before = 0
    at = last = len(order) - 1
    while True:
        if at == 0 or load[order[at]] <= target:
            if swaps == before:
                return swaps
            before, at = swaps, last
            continue
        i, q = _find_swap(ranks, line, order[at], target)
        if q >= 0:
            _swap(ranks, line, order[at], i, q)
            swaps += 1
        else:
            if at == last and load[order[at]] >= cutoff + (cutoff - target) // FAR:
                return swaps
            at -= 1


@inlined
def _find_swap(ranks, line, g, target):
    """Return (place on ``g``, place in line) of the best swap of rank ``g``: the heavier of both ranks gets lightest.

    The first that brings both to the target will do. -1 where none makes the heavier lighter than ``g`` is.
    """
    value, expert, load = ranks.value, ranks.expert, ranks.load
    top = best = load[g]
    least = load[ranks.order[0]]
    best_i = best_q = -1
    for i in range(value.shape[1] - 1, -1, -1):
        e = expert[g, i]
        for q in range(line.first[e] - 1, -1, -1):
            d = value[g, i] - line.value[q]
            if least + d >= best:
                break
            heavier = max(top - d, load[line.owner[q]] + d)
            if heavier < best and _may_swap(ranks, g, e, line.owner[q], line.expert[q]):
                best, best_i, best_q = heavier, i, q
                if best <= target:
                    return best_i, best_q
    return best_i, best_q


@inlined
def _may_swap(ranks, g, e, h, f):
    """Whether rank ``g`` may give expert ``e`` for ``f`` of rank ``h``, and neither has an expert twice for it."""
    return _may_hold(ranks, h, e) and _may_hold(ranks, g, f)


@inlined
def _may_hold(ranks, g, e):
    if ranks.replicas[e] > 1:
        for s in range(ranks.expert.shape[1]):
            if ranks.expert[g, s] == e:
                return False
    return True


@inlined
def _swap(ranks, line, g, i, q):
    """Swap replica ``i`` of rank ``g`` with the one at ``q`` in line."""
    h, p = line.owner[q], line.first[ranks.expert[g, i]]
    while line.owner[p] != g:
        p += 1
    exchange(ranks, g, i, h, _place(ranks, h, line.expert[q]))
    line.owner[p], line.owner[q] = h, g


@inlined
def _place(ranks, g, e):
    place = 0
    while ranks.expert[g, place] != e:
        place += 1
    return place


@native
def _chain(ranks, line, target):
    """Swap the heaviest rank with another that gets too heavy, which then swaps with a third.

    Of the chains that leave all three below the heaviest load, the one that leaves them lightest, or the first that
    brings them to the target. Returns whether there was one.
    """
    value, expert, load = ranks.value, ranks.expert, ranks.load
    g = ranks.order[len(load) - 1]
    top = best = load[g]
    least = load[ranks.order[0]]
    best_i = best_q = best_e = best_r = -1
    for i in range(value.shape[1]):
        e, tried = expert[g, i], 0
        for q in range(line.first[e] - 1, -1, -1):
            d, k, f = value[g, i] - line.value[q], line.owner[q], line.expert[q]
            if best <= target or tried == FIRST or top - d < least:
                break
            if top - d >= best or k == g or not _may_swap(ranks, g, e, k, f):
                continue
            tried += 1
            reached, then, r = _find_second(ranks, line, g, e, k, f, load[k] + d, max(top - d, target), best)
            if reached < best:
                best, best_i, best_q, best_e, best_r = reached, i, q, then, r
    if best_q < 0:
        return False
    k = line.owner[best_q]
    _swap(ranks, line, g, best_i, best_q)
    _swap(ranks, line, k, _place(ranks, k, best_e), best_r)
    return True


@inlined
def _find_second(ranks, line, g, e, k, f, over, enough, best):
    """Return (heaviest of the three ranks, expert, place in line) of the best second swap of a chain.

    Rank ``k``, which got ``e`` from rank ``g`` for ``f`` and carries ``over``, gives one of its experts for a third
    rank's. The first that leaves no more than ``enough`` will do; nothing found is ``best`` itself.
    """
    load = ranks.load
    least = load[ranks.order[0]]
    best_y = best_r = -1
    for y in ranks.expert[k]:
        y = e if y == f else y
        for r in range(line.first[y] - 1, -1, -1):
            d, h, w = line.each[y] - line.value[r], line.owner[r], line.expert[r]
            if least + d >= best:
                break
            heavier = max(over - d, load[h] + d)
            if heavier >= best or h in (g, k) or w == e or not _may_swap(ranks, k, y, h, w):
                continue
            best, best_y, best_r = max(heavier, enough), y, r
            if heavier <= enough:
                return best, best_y, best_r
    return best, best_y, best_r
