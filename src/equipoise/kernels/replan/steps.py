"""The best next step of one layer: of the thousands that there are, almost all are dismissed by a bound on their gain.

What a second replica of each expert would ease, and what one replica less would burden, is noted whenever a rank
changes. When expert a takes a slot of b, the gain is a sum of three such numbers: exact, unless a rank holds both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import inlined
from equipoise.kernels.replan import GONE
from equipoise.kernels.replan.layer import BURDEN, EACH, EASE, FEWER, MORE, SECOND, TALLEST, TALLEST_RANK, over

__all__ = ["best_exchange", "best_lend", "best_shed", "look_from", "new_view"]

REFUSED = -np.int64(2**60)  # below every gain, and four times it still fits


class View(NamedTuple):
    """The layer from its busiest rank, h.

    shared bool [slots, experts + 1], whether an expert lies on a rank that holds the one in this slot of h, the last
    column for nobody; near bool [experts + 1], whether it does so for any slot; gain int64 [experts], room for what
    each expert would gain by taking a slot of h.
    """

    shared: Any
    near: Any
    gain: Any


@inlined
def new_view(slots, experts):  # type: ignore[no-untyped-def]
    """Return room for a view."""
    return View(
        np.zeros((slots, experts + 1), dtype=np.bool_),
        np.zeros(experts + 1, dtype=np.bool_),
        np.empty(experts, dtype=np.int64),
    )


@inlined
def look_from(h, layer, view):  # type: ignore[no-untyped-def]
    """Fill ``view`` for rank ``h``."""
    view.shared[:] = False
    view.near[:] = False
    for i in range(layer.held.shape[1]):
        a = layer.held[h, i]
        for k in range(layer.num_where[a] if a >= 0 else 0):
            for s in range(layer.held.shape[1]):
                e = layer.held[layer.where[a, k], s]
                if e >= 0:
                    view.shared[i, e] = view.near[e] = True


@inlined
def _burden(g, b, most, layer):  # type: ignore[no-untyped-def]
    """Return what others that hold ``b`` lose when ``g`` gives it up; more than any gain if one reaches ``most``."""
    tallest = layer.noted[SECOND, b] if layer.noted[TALLEST_RANK, b] == g else layer.noted[TALLEST, b]
    now, after = layer.load[g], min(layer.load[g] + layer.unit[FEWER, b] - layer.unit[EACH, b], layer.cap)
    others = layer.noted[BURDEN, b] - over(after, layer.level, layer.shift) + over(now, layer.level, layer.shift)
    return others if tallest < most else -REFUSED


@inlined
def _extremes(h, layer):  # type: ignore[no-untyped-def]
    """Return the most that one replica more of an expert of ``h`` would ease, and the least that one would weigh."""
    top, least = np.int64(0), layer.load[h]
    for i in range(layer.held.shape[1]):
        a = layer.held[h, i]
        if a >= 0:
            top, least = max(top, layer.noted[EASE, a]), min(least, layer.unit[MORE, a])
    return top, least


@inlined
def best_lend(h, left, layer, view):  # type: ignore[no-untyped-def]
    """Return the best way to give an expert of ``h`` a slot elsewhere: its score, slot of h, rank and slot."""
    ranks, slots = layer.held.shape
    most, level, shift = layer.load[h], layer.level, layer.shift
    best, best_i, best_g, best_j = np.int64(0), -1, -1, -1
    top, least = _extremes(h, layer)
    for g in range(ranks):
        if g == h or layer.node[g] != layer.node[h] or (left < 1 and not layer.touched[g]):
            continue
        at_g = over(layer.load[g], level, shift)
        for j in range(slots):
            b = layer.held[g, j]
            if b == GONE or (b >= 0 and layer.replicas[b] < 2):
                continue
            # What g is left with, what that refunds, and what the other ranks that hold b lose by it.
            without, refund, burden, alone = layer.load[g], False, np.int64(0), True
            if b >= 0:
                without -= layer.unit[EACH, b]
                refund, burden = not layer.was[g, b], _burden(g, b, most, layer)
                alone = layer.on[g, b] == 1
            # Nobody gains more than this; where a rank holds a and b both, the burden may be less.
            at_most = top + at_g - over(min(without + least, most), level, shift)
            at_most -= 0 if view.near[b] or not alone else burden
            if at_most * (4 if layer.touched[g] else 2) <= best:
                continue
            for i in range(slots):
                a = layer.held[h, i]
                if a < 0:
                    continue
                after = without + layer.unit[MORE, a]
                if after >= most:
                    continue
                gain = layer.noted[EASE, a] + at_g - over(after, level, shift)
                plain = alone and not view.shared[i, b]
                if plain:
                    gain -= burden
                if 4 * gain <= best or layer.on[g, a] > 0:
                    continue
                cost = np.int64(not layer.was[g, a]) - np.int64(refund)
                if gain * _worth(cost) <= best or cost > left:
                    continue
                if not plain:
                    gain = _gain(a, g, b, h, layer)
                if gain * _worth(cost) > best:
                    best, best_i, best_g, best_j = gain * _worth(cost), i, g, j
    return best, best_i, best_g, best_j


@inlined
def best_shed(h, left, best, layer, view):  # type: ignore[no-untyped-def]
    """Return the best way to give a slot of ``h`` to another expert, if it beats ``best``: score, slot and expert."""
    most, level, shift = layer.load[h], layer.level, layer.shift
    at_h = over(most, level, shift)
    best_i, best_a = -1, -1
    for i in range(layer.held.shape[1] if left > 0 or layer.touched[h] else 0):
        b = layer.held[h, i]
        if b < 0 or layer.replicas[b] < 2:
            continue
        without, alone = most - layer.unit[EACH, b], layer.on[h, b] == 1
        refund, burden = not layer.was[h, b], _burden(h, b, most, layer) if alone else np.int64(0)
        for a in range(len(view.gain)):  # one formula for all, so that the processor takes several at once
            over_a = over(min(without + layer.unit[MORE, a], most), level, shift)
            view.gain[a] = layer.noted[EASE, a] + at_h - over_a - (0 if view.shared[i, a] else burden)
            view.gain[a] *= 4 if refund or layer.was[h, a] else 2
        for a in range(len(view.gain)):
            if view.gain[a] <= best or layer.on[h, a] > 0 or layer.home[a] != layer.node[h]:
                continue
            cost = np.int64(not layer.was[h, a]) - np.int64(refund)
            if cost > left or without + layer.unit[MORE, a] >= most:
                continue
            score = view.gain[a]
            if view.shared[i, a] or not alone:
                score = _gain(a, h, b, h, layer) * _worth(cost)
            if score > best:
                best, best_i, best_a = score, i, a
    return best, best_i, best_a


@inlined
def _worth(cost):  # type: ignore[no-untyped-def]
    return 4 if cost <= 0 else (2 if cost == 1 else 1)


@inlined
def _gain(a, g, b, h, layer):  # type: ignore[no-untyped-def]
    """Return what is gained when ``a`` takes a slot of ``b`` on rank ``g``; -1 if a rank then reaches the load of h."""
    most, level, shift = layer.load[h], layer.level, layer.shift
    fall = layer.unit[EACH, a] - layer.unit[MORE, a]
    rise = layer.unit[FEWER, b] - layer.unit[EACH, b]
    after = layer.load[g] + layer.unit[MORE, a] - layer.unit[EACH, b] + (layer.on[g, b] - 1) * rise
    # Where h holds b too, it must be eased by more than it is burdened: what most pairs fail, and soon told.
    if after >= most or (h != g and layer.on[h, b] > 0 and layer.on[h, a] * fall <= layer.on[h, b] * rise):
        return np.int64(-1)
    gain = over(layer.load[g], level, shift) - over(after, level, shift)
    for k in range(layer.num_where[a]):
        r = layer.where[a, k]
        after = layer.load[r] - layer.on[r, a] * fall + layer.on[r, b] * rise
        if layer.on[r, b] > 0 and after >= most:
            return np.int64(-1)
        gain += over(layer.load[r], level, shift) - over(after, level, shift)
    for k in range(layer.num_where[b]):
        r = layer.where[b, k]
        if r == g or layer.on[r, a] > 0:
            continue
        after = layer.load[r] + layer.on[r, b] * rise
        if after >= most:
            return np.int64(-1)
        gain += over(layer.load[r], level, shift) - over(after, level, shift)
    return gain


@inlined
def best_exchange(h, left, best, layer):  # type: ignore[no-untyped-def]
    """Return the best way for an expert of ``h`` to change places, if it beats ``best``: slot of h, rank and slot."""
    level, shift = layer.level, layer.shift
    ranks, slots = layer.held.shape
    most = layer.load[h]
    at_h = over(most, level, shift)
    best_i, best_g, best_j = -1, -1, -1
    for g in range(ranks):
        now = layer.load[g]
        room = most - now
        if g == h or layer.node[g] != layer.node[h] or room <= 0:
            continue
        # An exchange between two ranks that hold just what they held, and have no empty slot, costs two transfers.
        either = layer.touched[h] or layer.touched[g]
        at_both = at_h + over(now, level, shift)
        # Nothing between the two gains more than levelling them; nobody of h leaves for less than this.
        at_best = at_both - 2 * over((most + now) >> 1, level, shift)
        if (4 if either else 1) * at_best <= best or (left < 2 and not either):
            continue
        least = np.int64(1)
        for i in range(slots):
            u = layer.held[h, i]
            if u >= 0 and layer.on[g, u] == 0:
                least = min(least, np.int64(not layer.was[g, u]) - np.int64(not layer.was[h, u]))
        for j in range(slots):
            v = layer.held[g, j]
            if v == GONE:
                continue
            comes, each = np.int64(0), np.int64(0)
            if v >= 0:
                if layer.on[h, v] > 0:
                    continue
                comes, each = np.int64(not layer.was[h, v]) - np.int64(not layer.was[g, v]), layer.unit[EACH, v]
            if at_best * _worth(comes + least) <= best:
                continue
            for i in range(slots):
                u = layer.held[h, i]
                if u < 0 or layer.on[g, u] > 0:
                    continue
                d = layer.unit[EACH, u] - each
                if d <= 0 or d >= room:
                    continue
                cost = comes + np.int64(not layer.was[g, u]) - np.int64(not layer.was[h, u])
                gain = at_both - over(most - d, level, shift) - over(now + d, level, shift)
                if gain * _worth(cost) > best and cost <= left:
                    best, best_i, best_g, best_j = gain * _worth(cost), i, g, j
    return best_i, best_g, best_j
