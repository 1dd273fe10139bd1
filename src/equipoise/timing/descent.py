"""Descent in time: swaps, and replicas that fall asleep or wake.

After each step all ranks that it touched take less time than the busiest rank took before it.
"""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import allocating, inlined
from equipoise.timing.costs import cost
from equipoise.timing.ranks import holds, put, set_count, two_busiest

__all__ = ["descend"]

MOST_STEPS = 1  # for each slot of a layer
LITTLE = 2.0**-9  # of the busiest rank: as many steps as there are ranks that gain less are the last
LEAST_PART = 2048  # a swap moves more than one such part of the busiest rank
FEW = 4  # ranks are looked at for a swap, then replicas that may sleep or wake, and then all ranks


@allocating
def descend(ranks, curve, scale, tokens, target, per_node):
    """Improve ``ranks`` until the busiest costs no more than ``target`` or nothing helps it; return the steps taken.

    Replicas stay among ``per_node`` consecutive ranks.
    """
    steps, most, before, last = 0, MOST_STEPS * ranks.value.size, np.int64(2**62), np.int64(0)
    while steps < most:
        g, second = two_busiest(ranks.load)
        if ranks.load[g] <= target:
            break
        if steps % len(ranks.load) == 0:
            if ranks.load[g] > before * (1.0 - LITTLE):
                break
            before = ranks.load[g]
        helped = False
        for look in (FEW, per_node + 1):
            h, i, j = _find_swap(ranks, g, (max(second, target), per_node, last, look))
            if h >= 0:
                _swap(ranks, g, i, h, j)
                last, helped = h, True
            elif look == FEW:
                helped = _sleep_or_wake(ranks, curve, scale, tokens, g, per_node)
            if helped:
                break
        if not helped:
            break
        steps += 1
    return steps


@inlined
def _find_swap(ranks, g, asked):
    """Return (rank, slot of g, slot there) of the swap that leaves the lighter busier rank, or -1: with two pointers.

    ``asked`` is what is enough, ranks a node, the rank that was swapped with last, and how many to look at. The
    lightest rank comes first, then those behind the last. No further one is looked at where the busier of both comes
    to what is enough or less: another rank is as busy, or nothing more is asked.
    """
    value, expert, extra, load, count = ranks
    enough, per_node, last, look = asked
    slots = value.shape[1]
    top = best = load[g]
    best_h = best_i = best_j = -1
    lightest = begin = g // per_node * per_node
    for h in range(begin, begin + per_node):
        if load[h] < load[lightest]:
            lightest = h
    least = top // LEAST_PART
    for at in range(look):
        h = lightest if at == 0 else begin + (last + at) % per_node
        bottom = load[h]
        if h == g or (top + bottom + 1) // 2 >= best:
            continue
        half = (top - bottom) // 2
        j = 0
        for i in range(slots):
            u = value[g, i]
            while j < slots and value[h, j] < u - half:
                j += 1
            for q in (j, j - 1):
                if q < 0 or q >= slots:
                    continue
                d = u - value[h, q]
                heavier = max(top - d, bottom + d)
                if d <= least or heavier >= best or extra[g, i] != extra[h, q]:
                    continue
                e, f = expert[g, i], expert[h, q]
                if count[e] > 1 and holds(expert, h, e):
                    continue
                if f >= 0 and count[f] > 1 and holds(expert, g, f):
                    continue
                best, best_h, best_i, best_j = heavier, h, i, q
        if best <= enough:
            break
    return best_h, best_i, best_j


@inlined
def _swap(ranks, g, i, h, j):
    u, v = ranks.value[g, i], ranks.value[h, j]
    e, f = ranks.expert[g, i], ranks.expert[h, j]
    put(ranks, g, i, f, v)
    put(ranks, h, j, e, u)


@inlined
def _sleep_or_wake(ranks, curve, scale, tokens, g, per_node):
    """Put a replica of rank ``g`` to sleep, or wake one more of an expert that it holds; return whether that helped."""
    value, expert, extra, load, count = ranks
    apart = _is_apart(extra)
    best, best_i, best_h = load[g], np.int64(-1), np.int64(-1)
    lightest = _lightest_with_room(ranks, g, per_node, apart)
    for i in range(value.shape[1]):
        e, now = expert[g, i], value[g, i]
        if e < 0:
            continue
        if count[e] > 1 and (extra[g, i] or not apart):
            after = _after(ranks, e, load[g] - now, cost(curve, scale, tokens[e], count[e] - 1) - now, g)
            if after < best:
                best, best_i, best_h = after, i, np.int64(-1)
        if lightest < 0 or load[lightest] >= best:
            continue
        each = cost(curve, scale, tokens[e], count[e] + 1)
        if max(load[g] - now + each, load[lightest] + each) >= best:
            continue
        h = lightest if not holds(expert, lightest, e) else _find_room(ranks, g, e, per_node, apart)
        if h >= 0 and max(load[g] - now + each, load[h] + each) < best:
            best, best_i, best_h = max(load[g] - now + each, load[h] + each), i, h
    if best_i < 0:
        return False
    e = expert[g, best_i]
    if best_h < 0:
        put(ranks, g, best_i, np.int64(-1), np.int64(0))
        set_count(ranks, e, count[e] - 1, cost(curve, scale, tokens[e], count[e] - 1))
    else:
        each = cost(curve, scale, tokens[e], count[e] + 1)
        set_count(ranks, e, count[e] + 1, each)
        put(ranks, best_h, _free(ranks, best_h, apart), e, each)
    return True


@inlined
def _is_apart(extra):
    """Whether some slots are for replicas that may sleep, and the others for those that may not."""
    for s in range(extra.shape[1]):  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if extra[0, s]:
            return True
    return False


@inlined
def _after(ranks, e, own, more, g):
    """Return the busiest of rank ``g``, which comes to ``own``, and of all others with ``e``, which get ``more``."""
    after = own
    for h in range(len(ranks.load)):
        if ranks.load[h] + more > after and h != g and holds(ranks.expert, h, e):
            after = ranks.load[h] + more
    return after


@inlined
def _lightest_with_room(ranks, g, per_node, apart):
    """Return the lightest rank of the node of ``g`` with room for a replica, or -1."""
    at = -1
    begin = g // per_node * per_node
    for h in range(begin, begin + per_node):
        if (at < 0 or ranks.load[h] < ranks.load[at]) and _free(ranks, h, apart) >= 0:
            at = h
    return at


@inlined
def _find_room(ranks, g, e, per_node, apart):
    """Return the lightest rank of the node of ``g`` with room for one more replica of ``e``, or -1."""
    at = -1
    begin = g // per_node * per_node
    for h in range(begin, begin + per_node):
        lighter = at < 0 or ranks.load[h] < ranks.load[at]
        if lighter and _free(ranks, h, apart) >= 0 and not holds(ranks.expert, h, e):
            at = h
    return at


@inlined
def _free(ranks, h, apart):
    """Return a slot of rank ``h`` that one more replica may take, or -1: an extra one where some are."""
    for s in range(ranks.expert.shape[1]):
        if ranks.value[h, s] > 0:
            break  # whatever follows costs as much, and is taken
        if ranks.expert[h, s] < 0 and (ranks.extra[h, s] or not apart):
            return s
    return -1
