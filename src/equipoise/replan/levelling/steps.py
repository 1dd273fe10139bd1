"""The best next step of one layer: of the thousands that there are, almost all are dismissed by a bound on their gain.

What a second replica of each expert would ease, and what one replica less would burden, is noted whenever a rank
changes. When expert a takes a slot of b, the gain is a sum of three such numbers: exact, unless a rank holds both.
Bounds are compared before anything is looked at, and the step that promises most is looked at first: few others then
promise as much. Ties are decided by place, not by what came first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import allocating, inlined
from equipoise.replan.levelling import EMPTY, GONE
from equipoise.replan.levelling.layer import EACH, FEWER, MORE, over

__all__ = ["best_exchange", "best_lend", "best_shed", "look_from", "new_view"]

REFUSED = -np.int64(2**60)  # below every gain, and four times it still fits


class View(NamedTuple):
    """The layer from its busiest rank, h.

    at int64 [ranks], the square of what each rank carries above the level; expert int64 [slots], who is in the slots
    of h, GONE and EMPTY too, and each int64 [slots], what it weighs there; beside int64 [ranks], the most that one
    replica more of an expert that lies on the rank and on h would ease, REFUSED if there is none; back bool [ranks],
    whether an expert of h was on the rank and is no more. Room for ranks * slots + ranks steps that may be worth a
    look, int64: what they promise, the rank, who gives its slot there, and what others then lose.
    """

    at: Any
    expert: Any
    each: Any
    beside: Any
    back: Any
    promise: Any
    rank: Any
    giver: Any
    burden: Any


@allocating
def new_view(ranks, slots):
    """Return room for a view."""
    steps = ranks * slots + ranks
    return View(
        np.empty(ranks, dtype=np.int64), np.empty(slots, dtype=np.int64), np.empty(slots, dtype=np.int64),
        np.empty(ranks, dtype=np.int64), np.empty(ranks, dtype=np.bool_), np.empty(steps, dtype=np.int64),
        np.empty(steps, dtype=np.int64), np.empty(steps, dtype=np.int64), np.empty(steps, dtype=np.int64),
    )  # fmt: skip


@inlined
def look_from(h, layer, view):
    """Fill ``view`` for rank ``h``."""
    for i in range(len(view.expert)):
        view.expert[i] = layer.held[h, i]
        view.each[i] = layer.unit[EACH, view.expert[i]] if view.expert[i] >= 0 else 0
    for r in range(len(view.at)):
        view.at[r], view.beside[r], view.back[r] = over(layer.load[r], layer.level, layer.shift), REFUSED, False
        for i in range(len(view.expert) if layer.missing[r] > 0 else 0):
            a = view.expert[i]
            view.back[r] |= a >= 0 and layer.was[r, a] and layer.on[r, a] == 0
    for i in range(len(view.expert)):
        a = view.expert[i]
        for k in range(layer.num_where[a] if a >= 0 else 0):
            r = layer.where[a, k]
            view.beside[r] = max(view.beside[r], layer.ease[a])


@inlined
def _worth(cost):
    return 4 if cost <= 0 else (2 if cost == 1 else 1)


@inlined
def _burden(b, k, most, layer):
    """Return what others lose when the ``k``-th rank that holds ``b`` gives up its only one.

    More than any gain if one of them reaches ``most``.
    """
    return layer.burden[b, k] if layer.tallest[b, k] < most else -REFUSED


@inlined
def best_lend(h, layer, view):
    """Return the best way to give an expert of ``h`` a slot elsewhere: its score, slot of h, rank and slot."""
    number, first = _promise_lends(h, layer, view)
    best, best_i, best_g, best_j = np.int64(0), -1, -1, -1
    for n in range(-1, number):  # the most promising comes first
        k = first if n < 0 else n
        if view.promise[k] < max(best, 1) or n == first:
            continue
        g, b = view.rank[k], view.giver[k]
        j = 0
        while layer.held[g, j] != b:
            j += 1
        score, i = _lend(g, b, view.burden[k], h, best, layer, view)
        if score > best or (score == best and i >= 0 and (g < best_g or (g == best_g and j < best_j))):
            best, best_i, best_g, best_j = score, i, g, j
    return best, best_i, best_g, best_j


@inlined
def _promise_lends(h, layer, view):
    """Note each rank and expert of it that may give its slot, with a score that nobody of ``h`` exceeds there.

    Return how many there are, and which of them promises most.
    """
    busiest = layer.load[h]
    top, least, fall = np.int64(0), busiest, np.int64(0)
    for i in range(len(view.expert)):
        a = view.expert[i]
        if a >= 0:
            top, least = max(top, layer.ease[a]), min(least, layer.unit[MORE, a])
            fall = max(fall, (layer.unit[EACH, a] - layer.unit[MORE, a]) * layer.on[h, a])
    number, first, view.promise[0] = 0, 0, REFUSED
    for m in range(layer.num_many[0]):
        b = np.int64(layer.many[m])
        rise = (layer.unit[FEWER, b] - layer.unit[EACH, b]) * layer.on[h, b]
        if rise > 0 and rise >= fall:
            continue  # h would end no lighter
        for k in range(layer.num_where[b]):
            g, shared = layer.where[b, k], REFUSED
            for other in range(layer.num_where[b]):  # where a rank holds a and b both, the burden may be less
                shared = max(shared, view.beside[layer.where[b, other]] if other != k else REFUSED)
            burden = _burden(b, k, busiest, layer) if layer.on[g, b] == 1 else np.int64(0)
            if shared == REFUSED and burden == -REFUSED:
                continue
            cost = 1 - np.int64(view.back[g]) - np.int64(not layer.was[g, b])
            if g == h or layer.node[g] != layer.node[h]:
                continue
            most = max(top - burden, shared) if rise == 0 else top - _rises(busiest - fall, rise, layer)
            after = min(layer.load[g] - layer.unit[EACH, b] + least, busiest)
            most += view.at[g] - over(after, layer.level, layer.shift)
            view.rank[number], view.giver[number], view.burden[number] = g, b, burden
            view.promise[number] = most * _worth(cost)
            first = number if view.promise[number] > view.promise[first] else first
            number += 1
    for g in range(len(layer.vacant)):
        cost = 1 - np.int64(view.back[g])
        if layer.vacant[g] == 0 or g == h or layer.node[g] != layer.node[h]:
            continue
        after = min(layer.load[g] + least, busiest)
        view.rank[number], view.giver[number], view.burden[number] = g, EMPTY, 0
        view.promise[number] = (top + view.at[g] - over(after, layer.level, layer.shift)) * _worth(cost)
        first = number if view.promise[number] > view.promise[first] else first
        number += 1
    return number, first


@inlined
def _rises(load, rise, layer):
    """Return the least by which the square of a rank of at least ``load`` grows when ``rise`` is added."""
    high, more = max(load - layer.level, 0) >> layer.shift, rise >> layer.shift
    return more * (2 * high + more) if load >= layer.level else np.int64(0)


@inlined
def _lend(g, b, burden, h, best, layer, view):
    """Return the best score of one of ``h`` in a slot of ``b`` on ``g``, ``best`` at least, and its slot, or -1."""
    most, level, shift = layer.load[h], layer.level, layer.shift
    without, refund, alone = layer.load[g], np.int64(0), True
    if b >= 0:
        without -= layer.unit[EACH, b]
        refund, alone = np.int64(not layer.was[g, b]), layer.on[g, b] == 1
    best_i = -1
    for i in range(len(view.expert)):
        a = view.expert[i]
        if a < 0:
            continue
        after = without + layer.unit[MORE, a]
        if after >= most:
            continue
        gain = layer.ease[a] + view.at[g] - over(after, level, shift)
        if 4 * gain < best or layer.on[g, a] > 0:
            continue
        cost = np.int64(not layer.was[g, a]) - refund
        if gain * _worth(cost) < best:
            continue
        gain = gain - burden if alone and not _meet(a, b, layer) else _gain(a, g, b, h, layer, view)
        score = gain * _worth(cost)
        if score > best or (score == best and best_i < 0):
            best, best_i = score, i
    return best, best_i


@inlined
def _meet(a, b, layer):
    """Whether a rank holds both."""
    both = False
    for k in range(layer.num_where[a] if b >= 0 else 0):
        both |= layer.on[layer.where[a, k], b] > 0
    return both


@inlined
def _gain(a, g, b, h, layer, view):
    """Return what is gained when ``a`` takes a slot of ``b`` on rank ``g``; -1 if a rank then reaches the load of h."""
    most, level, shift = layer.load[h], layer.level, layer.shift
    fall = layer.unit[EACH, a] - layer.unit[MORE, a]
    rise = layer.unit[FEWER, b] - layer.unit[EACH, b]
    after = layer.load[g] + layer.unit[MORE, a] - layer.unit[EACH, b] + (layer.on[g, b] - 1) * rise
    # Where h holds b too, it must be eased by more than it is burdened: what most pairs fail, and soon told.
    if after >= most or (h != g and layer.on[h, b] > 0 and layer.on[h, a] * fall <= layer.on[h, b] * rise):
        return np.int64(-1)
    gain = view.at[g] - over(after, level, shift)
    for k in range(layer.num_where[a]):
        r = layer.where[a, k]
        after = layer.load[r] - layer.on[r, a] * fall + layer.on[r, b] * rise
        if layer.on[r, b] > 0 and after >= most:
            return np.int64(-1)
        gain += view.at[r] - over(after, level, shift)
    for k in range(layer.num_where[b]):
        r = layer.where[b, k]
        if r == g or layer.on[r, a] > 0:
            continue
        after = layer.load[r] + layer.on[r, b] * rise
        if after >= most:
            return np.int64(-1)
        gain += view.at[r] - over(after, level, shift)
    return gain


@inlined
def best_shed(h, best, layer, view):
    """Return the best way to give a slot of ``h`` to another expert, if it beats ``best``: score, slot and expert."""
    best_i, best_a = -1, np.int64(-1)
    for i in range(len(view.expert)):  # what h holds is no candidate
        if view.expert[i] >= 0:
            layer.ease[view.expert[i]] += REFUSED
    for i in range(len(view.expert)):
        b = view.expert[i]
        if b < 0 or layer.replicas[b] < 2:
            continue
        cost = 1 - np.int64(layer.missing[h] > 0) - np.int64(not layer.was[h, b])
        promise = view.at[h] + _most_eased(layer.load[h] - view.each[i], layer.load[h], layer)
        if promise * _worth(cost) <= best:
            continue
        k = 0
        while layer.where[b, k] != h:
            k += 1
        burden = _burden(b, k, layer.load[h], layer) if layer.on[h, b] == 1 else np.int64(0)
        if (promise - burden) * _worth(cost) > best:
            for a in range(len(layer.ease)):
                score = _shed(a, i, burden, h, best, layer, view)
                if score > best:
                    best, best_i, best_a = score, i, a
            continue
        for k in range(layer.num_where[b]):  # only who lies on a rank with b burdens it less
            r = layer.where[b, k]
            after = layer.load[r] + layer.on[r, b] * (layer.unit[FEWER, b] - layer.unit[EACH, b])
            for s in range(len(view.expert) if r != h else 0):
                a = np.int64(layer.held[r, s])
                if a < 0 or after - layer.on[r, a] * (layer.unit[EACH, a] - layer.unit[MORE, a]) >= layer.load[h]:
                    continue
                score = _shed(a, i, burden, h, best, layer, view)
                if score > best or (score == best and best_i == i and a < best_a):
                    best, best_i, best_a = score, i, a
    for i in range(len(view.expert)):
        if view.expert[i] >= 0:
            layer.ease[view.expert[i]] -= REFUSED
    return best, best_i, best_a


@inlined
def _most_eased(without, most, layer):
    """Return the most of what an expert eases, less what it then weighs on a rank that has ``without`` besides."""
    peak = 2 * REFUSED
    for a in range(len(layer.ease)):
        after = min(without + layer.unit[MORE, a], most)
        peak = max(peak, layer.ease[a] - over(after, layer.level, layer.shift))
    return peak


@inlined
def _shed(a, i, burden, h, best, layer, view):
    """Return the score of ``a`` in slot ``i`` of ``h``, or -1 if that cannot be or is below ``best``."""
    b, most = view.expert[i], layer.load[h]
    after = most - view.each[i] + layer.unit[MORE, a]
    if after >= most or layer.on[h, a] > 0:
        return np.int64(-1)
    gain = layer.ease[a] + view.at[h] - over(after, layer.level, layer.shift)
    if 4 * gain < best or layer.home[a] != layer.node[h]:
        return np.int64(-1)
    cost = np.int64(not layer.was[h, a]) - np.int64(not layer.was[h, b])
    if gain * _worth(cost) < best:
        return np.int64(-1)
    shared = layer.on[h, b] > 1 or _meet(a, b, layer)
    return (_gain(a, h, b, h, layer, view) if shared else gain - burden) * _worth(cost)


@inlined
def best_exchange(h, best, layer, view):
    """Return the best way for an expert of ``h`` to change places, if it beats ``best``: slot of h, rank and slot."""
    best_i, best_g, best_j = -1, -1, -1
    first = _promise_exchanges(h, layer, view)
    for n in range(-1, len(view.at)):  # the most promising comes first
        g = first if n < 0 else n
        if view.promise[g] < max(best, 1) or n == first:
            continue
        score, i, j = _exchange(g, h, best, layer, view)
        if score > best or (score == best and i >= 0 and g < best_g):
            best, best_i, best_g, best_j = score, i, g, j
    return best_i, best_g, best_j


@inlined
def _leaves(g, h, layer, view):
    """Return the fewest transfers for which an expert of ``h`` moves to ``g``: fewer if it was there, or not on h."""
    return 1 - np.int64(view.back[g]) - np.int64(layer.fresh[h] > 0)


@inlined
def _promise_exchanges(h, layer, view):
    """Note for each rank the score that no exchange with it exceeds; return which promises most."""
    first = 0
    for g in range(len(view.at)):
        comes = 1 - np.int64(layer.missing[h] > 0) - np.int64(layer.fresh[g] > 0)
        cost = _leaves(g, h, layer, view) + (comes if layer.vacant[g] == 0 else min(comes, 0))
        # Nothing between the two gains more than levelling them.
        level = over((layer.load[h] + layer.load[g]) >> 1, layer.level, layer.shift)
        allowed = layer.load[g] < layer.load[h] and layer.node[g] == layer.node[h]
        view.promise[g] = (view.at[h] + view.at[g] - 2 * level) * _worth(cost) if allowed else -1
        first = g if view.promise[g] > view.promise[first] else first
    return first


@inlined
def _exchange(g, h, best, layer, view):
    """Return the best score of an exchange with ``g``, ``best`` at least, and its slots of h and g, or -1."""
    most, now, level, shift = layer.load[h], layer.load[g], layer.level, layer.shift
    at_both, leaves = view.at[h] + view.at[g], _leaves(g, h, layer, view)
    at_best = at_both - 2 * over((most + now) >> 1, level, shift)
    best_i, best_j = -1, -1
    for j in range(len(view.expert)):
        v = layer.held[g, j]
        if v == GONE or (v >= 0 and layer.on[h, v] > 0):
            continue
        comes, each = np.int64(0), np.int64(0)
        if v >= 0:
            comes, each = np.int64(not layer.was[h, v]) - np.int64(not layer.was[g, v]), layer.unit[EACH, v]
        worth = _worth(comes + leaves)
        if at_best * worth < best:
            continue
        for i in range(len(view.expert)):
            d = view.each[i] - each
            if d <= 0 or d >= most - now:
                continue
            gain = at_both - over(most - d, level, shift) - over(now + d, level, shift)
            u = view.expert[i]
            if gain * worth < best or u < 0 or layer.on[g, u] > 0:
                continue
            score = gain * _worth(comes + np.int64(not layer.was[g, u]) - np.int64(not layer.was[h, u]))
            if score > best or (score == best and best_i < 0):
                best, best_i, best_j = score, i, j
    return best, best_i, best_j
