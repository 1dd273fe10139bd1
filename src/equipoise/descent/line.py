"""Swaps and chains of two swaps, searched among all replicas of the row at once.

A rank that carries d too much for its own good has to swap a replica for one that is about d lighter. With all
replicas in line by load, those lie side by side, whatever ranks they are on: where ranks are nearly level, a few
candidates, while a look at every rank costs as much as there are ranks.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.facts import CHAINS, STEPS, SWAPS
from equipoise.descent.layer import busiest, exchange, goes_on, may_take, skips
from equipoise.descent.sorting import sort_ascending
from equipoise.kernels.bits import bits_for
from equipoise.kernels.native import inlined, internal

__all__ = ["level_by_chains", "level_by_swaps"]

FIRST = 16  # first swaps of each replica that a chain begins with
FAR = 8  # a rank stuck above the cutoff by one part in so many of what that is above the target is given up


@internal
def level_by_swaps(layer, target, cutoff):
    """Swap until no rank is above ``target`` or the heaviest is stuck; return how often."""
    before = layer.facts[SWAPS]
    _line_up(layer)
    _swap_all(layer, target, cutoff)
    return layer.facts[SWAPS] - before


@internal
def level_by_chains(layer, target, cutoff):
    """Swap, and where no swap is left chain swaps, until no rank is above ``target`` or the heaviest is stuck.

    For ranks of at most three slots: with more, swaps and pairs find nearly all that chains would. Tries no chains for
    a heaviest rank of ``cutoff`` or more. Returns how often something was swapped.
    """
    facts = layer.facts
    before = facts[SWAPS] + facts[CHAINS]
    _line_up(layer)
    while True:
        _swap_all(layer, target, cutoff)
        heaviest = busiest(layer)
        if heaviest <= target or heaviest >= cutoff or skips(layer, CHAINS) or not _chain(layer, target):
            return facts[SWAPS] + facts[CHAINS] - before
        facts[CHAINS] += 1


@internal
def _line_up(layer):
    """Set the line from the ranks."""
    ranks, line, scratch = layer.ranks, layer.line, layer.scratch
    layer.facts[STEPS] += 10 * (layer.best.size + len(layer.weight))
    value, expert, replicas, keys = ranks.value, ranks.expert, ranks.replicas, scratch.keys
    num_ranks, slots = expert.shape
    experts = len(replicas)
    bits = bits_for(experts)
    for g in range(num_ranks):
        for s in range(slots):
            line.each[expert[g, s]] = value[g, s]
    for i in range(experts):  # from the coldest on: only experts with replicas are out of order
        e = experts - 1 - i
        keys[i] = (line.each[e] << bits) | e
    sort_ascending(keys[:experts], scratch.spare)
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


@internal
def _swap_all(layer, target, cutoff):
    """Swap until no rank above ``target`` has a swap left.

    The heaviest rank comes first, then the next heaviest: a rank that is stuck may come free when others have changed.
    Gives up where the heaviest is stuck well above ``cutoff``.
    """
    load, order = layer.ranks.load, layer.ranks.order
    swaps = before = 0
    at = last = len(order) - 1
    while goes_on(layer, 0):
        if at == 0 or load[order[at]] <= target:
            if swaps == before:
                return
            before, at = swaps, last
            continue
        i, q = _find_swap(layer, order[at], target)
        if q >= 0:
            _swap(layer, order[at], i, q)
            swaps += 1
            layer.facts[SWAPS] += 1
        else:
            if at == last and load[order[at]] >= cutoff + (cutoff - target) // FAR:
                return
            at -= 1


@inlined
def _find_swap(layer, g, target):
    """Return (place on ``g``, place in line) of the best swap of rank ``g``: the heavier of both ranks gets lightest.

    The first that brings both to the target will do. -1 where none makes the heavier lighter than ``g`` is.
    """
    ranks, line = layer.ranks, layer.line
    value, expert, load = ranks.value, ranks.expert, ranks.load
    top = best = load[g]
    least = load[ranks.order[0]]
    best_i = best_q = np.int64(-1)
    for i in range(value.shape[1] - 1, -1, -1):
        e = expert[g, i]
        q = line.first[e]
        while q > 0:
            q -= 1
            d = value[g, i] - line.value[q]
            if least + d >= best:
                break
            heavier = max(top - d, load[line.owner[q]] + d)
            if heavier < best and may_take(ranks, line.owner[q], e) and may_take(ranks, g, line.expert[q]):
                best, best_i, best_q = heavier, i, q
                if best <= target:
                    return best_i, best_q
        layer.facts[STEPS] += 3 * (line.first[e] - q) + 5
    return best_i, best_q


@inlined
def _swap(layer, g, i, q):
    """Swap replica ``i`` of rank ``g`` with the one at ``q`` in line."""
    ranks, line = layer.ranks, layer.line
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


@internal
def _chain(layer, target):
    """Swap the heaviest rank with another that gets too heavy, which then swaps with a third.

    Of the chains that leave all three below the heaviest load, the one that leaves them lightest, or the first that
    brings them to the target. Returns whether there was one.
    """
    ranks, line = layer.ranks, layer.line
    value, expert, load = ranks.value, ranks.expert, ranks.load
    g = ranks.order[len(load) - 1]
    top = best = load[g]
    least = load[ranks.order[0]]
    best_i = best_q = best_e = best_r = np.int64(-1)
    for i in range(value.shape[1]):
        e, tried = expert[g, i], 0
        for q in range(line.first[e] - 1, -1, -1):
            d, k, f = value[g, i] - line.value[q], line.owner[q], line.expert[q]
            if best <= target or tried == FIRST or top - d < least:
                break
            if top - d >= best or k == g or not may_take(ranks, k, e) or not may_take(ranks, g, f):
                continue
            tried += 1
            reached, then, r = _find_second(layer, g, e, q, max(top - d, target), best)
            if reached < best:
                best, best_i, best_q, best_e, best_r = reached, i, q, then, r
        if not goes_on(layer, line.first[e]):
            break
    if best_q < 0:
        return False
    k = line.owner[best_q]
    _swap(layer, g, best_i, best_q)
    _swap(layer, k, _place(ranks, k, best_e), best_r)
    return True


@inlined
def _find_second(layer, g, e, q, enough, best):
    """Return (heaviest of the three ranks, expert, place in line) of the best second swap of a chain.

    Rank k, which gets ``e`` from rank ``g`` for what is at ``q`` in line, gives one of its experts for a third rank's.
    The first that leaves no more than ``enough`` will do; nothing found is ``best`` itself.
    """
    ranks, line = layer.ranks, layer.line
    load = ranks.load
    least = load[ranks.order[0]]
    k, f = line.owner[q], line.expert[q]
    over = load[k] + line.each[e] - line.value[q]
    best_y = best_r = np.int64(-1)
    for y in ranks.expert[k]:
        y = e if y == f else y
        r = line.first[y]
        while r > 0:
            r -= 1
            d, h, w = line.each[y] - line.value[r], line.owner[r], line.expert[r]
            if least + d >= best:
                break
            heavier = max(over - d, load[h] + d)
            if heavier >= best or h in (g, k) or w == e or not may_take(ranks, h, y) or not may_take(ranks, k, w):
                continue
            best, best_y, best_r = max(heavier, enough), y, r
            if heavier <= enough:
                return best, best_y, best_r
        layer.facts[STEPS] += 5 * (line.first[y] - r) + 5
    return best, best_y, best_r
