"""Re-planning, native: every step looks at a few thousand others, most of them dismissed by one comparison.

What a second replica of each expert would ease, and what one replica less would burden, is noted once a step for all
experts. The gain of a step is then a sum of three noted numbers, exact unless a rank holds both experts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import native
from equipoise.kernels.replan import EMPTY, GONE
from equipoise.threads import for_each

__all__ = ["descend"]

Int64s = NDArray[np.int64]

LEND, SHED, EXCHANGE = 0, 1, 2
EACH, MORE, FEWER = 0, 1, 2  # load of one replica: now, with one replica more, with one less
EASE, BURDEN, TALLEST, TALLEST_RANK, SECOND = 0, 1, 2, 3, 4
MAX = np.int64(2**63 - 1)


def descend(
    held: NDArray[np.int32],
    was: NDArray[np.bool_],
    weight: Int64s,
    node: NDArray[np.int32],
    home: NDArray[np.int32],
    level: Int64s,
    limit: Int64s,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], Int64s, Int64s]:
    """Level the ranks of each layer; see the folder's contract."""
    held = held.copy()
    curve = np.full((len(held), int(limit.max()) + 1), MAX)
    spent = np.empty(len(held), dtype=np.int64)

    def work(row: int) -> None:
        _descend(held[row], was[row], weight[row], node, home[row], level[row], limit[row], curve[row], spent[row:])

    for_each(work, range(len(held)), threads)
    return held, curve, spent


@native
def _descend(held, was, weight, node, home, level, limit, curve, out):  # type: ignore[no-untyped-def]
    """Level the ranks of one layer in place, fill ``curve``, and leave the transfers in ``out[0]``."""
    ranks, slots = held.shape
    experts = len(weight)
    on = np.zeros((ranks, experts), dtype=np.int16)  # replicas of each expert on each rank
    where = np.zeros((experts, ranks), dtype=np.int32)  # the ranks that hold it, in no order
    num_where = np.zeros(experts, dtype=np.int64)
    replicas = np.zeros(experts, dtype=np.int64)
    unit = np.zeros((3, experts), dtype=np.int64)
    load = np.zeros(ranks, dtype=np.int64)
    noted = np.zeros((5, experts), dtype=np.int64)
    spent = 0
    for g in range(ranks):
        for s in range(slots):
            e = held[g, s]
            if e >= 0:
                replicas[e] += 1
                spent += not was[g, e]
                on[g, e] += 1
                if on[g, e] == 1:
                    where[e, num_where[e]] = g
                    num_where[e] += 1
    for e in range(experts):
        _weigh(e, weight[e], replicas[e], unit)
        for k in range(num_where[e]):
            load[where[e, k]] += on[where[e, k], e] * unit[EACH, e]
    # An exchange between two ranks that hold just what they held, and have no empty slot, costs two transfers.
    touched = np.zeros(ranks, dtype=np.bool_)
    for g in range(ranks):
        for s in range(slots):
            touched[g] |= held[g, s] == EMPTY
        for e in range(experts):
            touched[g] |= was[g, e] != (on[g, e] > 0)
    cap, stale = load.max(), np.ones(experts, dtype=np.bool_)
    shift = _shift(max(cap - level, 0), ranks)
    while True:
        h = int(np.argmax(load))
        curve[spent] = min(curve[spent], load[h])
        if load[h] <= level:
            break
        _note(stale, replicas, on, where, num_where, unit, load, level, shift, cap, noted)
        left = limit - spent
        kind = -1
        score, i, g, j = _best_lend(
            h, left, held, was, node, replicas, on, where, num_where, unit, load, level, shift, cap, noted
        )
        if i >= 0:
            kind = LEND
        score, at, a = _best_shed(
            h, left, score, held, was, node, home, replicas, on, where, num_where, unit, load, level, shift, cap, noted
        )
        if at >= 0:
            kind, i, g, j = SHED, at, h, a
        at, other, slot = _best_exchange(h, left, score, held, was, touched, node, on, unit, load, level, shift)
        if at >= 0:
            kind, i, g, j = EXCHANGE, at, other, slot
        if kind < 0:
            break
        if kind == EXCHANGE:
            u, v = held[h, i], held[g, j]
            spent += _put(h, i, v, held, was, touched, on, where, num_where, unit, load)
            spent += _put(g, j, u, held, was, touched, on, where, num_where, unit, load)
            _mark_stale(h, held, stale)
            _mark_stale(g, held, stale)
            continue
        a, slot = (np.int64(held[h, i]), j) if kind == LEND else (j, i)
        b = np.int64(held[g, slot])
        for e, by in ((a, 1), (b, -1)):  # the new weights where they are, then the slot itself
            if e >= 0:
                before = unit[EACH, e]
                replicas[e] += by
                _weigh(e, weight[e], replicas[e], unit)
                for k in range(num_where[e]):
                    load[where[e, k]] += on[where[e, k], e] * (unit[EACH, e] - before)
                    _mark_stale(where[e, k], held, stale)
        spent += _put(g, slot, a, held, was, touched, on, where, num_where, unit, load)
        _mark_stale(g, held, stale)
    for k in range(1, len(curve)):
        curve[k] = min(curve[k], curve[k - 1])
    out[0] = spent


@native
def _mark_stale(g, held, stale):  # type: ignore[no-untyped-def]
    for e in held[g]:
        if e >= 0:
            stale[e] = True


@native
def _weigh(e, weight, replicas, unit):  # type: ignore[no-untyped-def]
    unit[EACH, e] = weight // max(replicas, 1)
    unit[MORE, e] = weight // (replicas + 1)
    unit[FEWER, e] = weight // max(replicas - 1, 1)


@native
def _shift(most, ranks):  # type: ignore[no-untyped-def]
    """Return how many bits to drop so that squares of up to ``most``, one for each rank, add up to less than 2**60."""
    shift = 0
    while (most >> shift) > 0 and (most >> shift) >= np.int64(np.sqrt(2.0**60 / ranks)):
        shift += 1
    return shift


@native
def _over(load, level, shift):  # type: ignore[no-untyped-def]
    over = max(load - level, 0) >> shift
    return over * over


@native
def _worth(cost):  # type: ignore[no-untyped-def]
    return 4 if cost <= 0 else (2 if cost == 1 else 1)


@native
def _note(stale, replicas, on, where, num_where, unit, load, level, shift, cap, noted):  # type: ignore[no-untyped-def]
    """Note for each expert what one replica more would ease, what one less would burden, and who then stands highest.

    A rank that would exceed ``cap`` counts as ``cap``, so that sums keep their bound; such steps are refused anyway.
    """
    for e in range(len(replicas)):
        if not stale[e]:
            continue
        stale[e] = False
        ease, burden = np.int64(0), np.int64(0)
        first, second, rank = np.int64(0), np.int64(0), -1
        fall, rise = unit[EACH, e] - unit[MORE, e], unit[FEWER, e] - unit[EACH, e]
        for k in range(num_where[e]):
            r = where[e, k]
            now, times = load[r], on[r, e]
            if now > level:
                ease += _over(now, level, shift) - _over(now - times * fall, level, shift)
            if replicas[e] > 1:
                after = now + times * rise
                burden += _over(min(after, cap), level, shift) - _over(now, level, shift)
                if after > first:
                    first, second, rank = after, first, r
                elif after > second:
                    second = after
        noted[EASE, e], noted[BURDEN, e] = ease, burden
        noted[TALLEST, e], noted[TALLEST_RANK, e], noted[SECOND, e] = first, rank, second


@native
def _best_lend(h, left, held, was, node, replicas, on, where, num_where, unit, load, level, shift, cap, noted):  # type: ignore[no-untyped-def]
    """Return the best way to give an expert of ``h`` a slot elsewhere: its score, slot of h, rank and slot."""
    ranks, slots = held.shape
    most = load[h]
    best, best_i, best_g, best_j = np.int64(0), -1, -1, -1
    for g in range(ranks):
        if g == h or node[g] != node[h]:
            continue
        now = load[g]
        at_g = _over(now, level, shift)
        for j in range(slots):
            b = held[g, j]
            if b == GONE or (b >= 0 and replicas[b] < 2):
                continue
            # What leaves g, what it costs or refunds, and what the other ranks that hold b lose by it.
            without, refund, burden, tallest = now, np.int64(0), np.int64(0), np.int64(0)
            if b >= 0:
                without, refund = now - unit[EACH, b], np.int64(not was[g, b])
                burden = noted[BURDEN, b] + at_g
                burden -= _over(min(now + unit[FEWER, b] - unit[EACH, b], cap), level, shift)
                tallest = noted[SECOND, b] if noted[TALLEST_RANK, b] == g else noted[TALLEST, b]
            for i in range(slots):
                a = held[h, i]
                if a < 0:
                    continue
                after = without + unit[MORE, a]
                if after >= most:
                    continue
                gain = noted[EASE, a] + at_g - _over(after, level, shift)
                if 4 * gain <= best or on[g, a] > 0:
                    continue
                cost = np.int64(not was[g, a]) - refund
                worth = _worth(cost)
                if gain * worth <= best or cost > left:
                    continue
                if b >= 0:
                    plain = on[g, b] == 1
                    for k in range(num_where[a]):
                        plain = plain and on[where[a, k], b] == 0
                    if not plain:
                        gain = _gain(a, g, b, most, on, where, num_where, unit, load, level, shift)
                    elif tallest < most:
                        gain -= burden
                    else:
                        continue
                if gain * worth > best:
                    best, best_i, best_g, best_j = gain * worth, i, g, j
    return best, best_i, best_g, best_j


@native
def _best_shed(  # type: ignore[no-untyped-def]
    h, left, best, held, was, node, home, replicas, on, where, num_where, unit, load, level, shift, cap, noted
):
    """Return the best way to give a slot of ``h`` to another expert, if it beats ``best``: score, slot and expert."""
    most = load[h]
    at_h = _over(most, level, shift)
    best_i, best_a = -1, -1
    for i in range(held.shape[1]):
        b = held[h, i]
        if b < 0 or replicas[b] < 2:
            continue
        without = most - unit[EACH, b]
        burden = noted[BURDEN, b] + at_h - _over(min(most + unit[FEWER, b] - unit[EACH, b], cap), level, shift)
        tallest = noted[SECOND, b] if noted[TALLEST_RANK, b] == h else noted[TALLEST, b]
        for a in range(len(replicas)):
            after = without + unit[MORE, a]
            if after >= most:
                continue
            gain = noted[EASE, a] + at_h - _over(after, level, shift)
            if 4 * gain <= best or on[h, a] > 0 or home[a] != node[h]:
                continue
            cost = np.int64(not was[h, a]) - np.int64(not was[h, b])
            worth = _worth(cost)
            if gain * worth <= best or cost > left:
                continue
            plain = on[h, b] == 1
            for k in range(num_where[a]):
                plain = plain and on[where[a, k], b] == 0
            if not plain:
                gain = _gain(a, h, b, most, on, where, num_where, unit, load, level, shift)
            elif tallest < most:
                gain -= burden
            else:
                continue
            if gain * worth > best:
                best, best_i, best_a = gain * worth, i, a
    return best, best_i, best_a


@native
def _best_exchange(h, left, best, held, was, touched, node, on, unit, load, level, shift):  # type: ignore[no-untyped-def]
    """Return the best way for an expert of ``h`` to change places, if it beats ``best``: slot of h, rank and slot."""
    ranks, slots = held.shape
    most = load[h]
    at_h = _over(most, level, shift)
    best_i, best_g, best_j = -1, -1, -1
    for g in range(ranks):
        now = load[g]
        room = most - now
        if g == h or node[g] != node[h] or room <= 0:
            continue
        at_both = at_h + _over(now, level, shift)
        # Nothing between the two gains more than levelling them; nobody of h leaves for less than this.
        at_best = at_both - 2 * _over((most + now) >> 1, level, shift)
        if (4 if touched[h] or touched[g] else 1) * at_best <= best:
            continue
        least = np.int64(1)
        for i in range(slots):
            u = held[h, i]
            if u >= 0 and on[g, u] == 0:
                least = min(least, np.int64(not was[g, u]) - np.int64(not was[h, u]))
        for j in range(slots):
            v = held[g, j]
            if v == GONE:
                continue
            comes, each = np.int64(0), np.int64(0)
            if v >= 0:
                if on[h, v] > 0:
                    continue
                comes, each = np.int64(not was[h, v]) - np.int64(not was[g, v]), unit[EACH, v]
            if at_best * _worth(comes + least) <= best:
                continue
            for i in range(slots):
                u = held[h, i]
                if u < 0 or on[g, u] > 0:
                    continue
                d = unit[EACH, u] - each
                if d <= 0 or d >= room:
                    continue
                cost = comes + np.int64(not was[g, u]) - np.int64(not was[h, u])
                gain = at_both - _over(most - d, level, shift) - _over(now + d, level, shift)
                if gain * _worth(cost) > best and cost <= left:
                    best, best_i, best_g, best_j = gain * _worth(cost), i, g, j
    return best_i, best_g, best_j


@native
def _gain(a, g, b, most, on, where, num_where, unit, load, level, shift):  # type: ignore[no-untyped-def]
    """Return what is gained when ``a`` takes a slot of ``b`` on rank ``g``, or -1 if a rank then reaches ``most``."""
    fall, rise = unit[EACH, a] - unit[MORE, a], unit[FEWER, b] - unit[EACH, b]
    after = load[g] + unit[MORE, a] - unit[EACH, b] + (on[g, b] - 1) * rise
    if after >= most:
        return np.int64(-1)
    gain = _over(load[g], level, shift) - _over(after, level, shift)
    for k in range(num_where[a]):
        r = where[a, k]
        after = load[r] - on[r, a] * fall + on[r, b] * rise
        if on[r, b] > 0 and after >= most:
            return np.int64(-1)
        gain += _over(load[r], level, shift) - _over(after, level, shift)
    for k in range(num_where[b]):
        r = where[b, k]
        if r == g or on[r, a] > 0:
            continue
        after = load[r] + on[r, b] * rise
        if after >= most:
            return np.int64(-1)
        gain += _over(load[r], level, shift) - _over(after, level, shift)
    return gain


@native
def _put(g, j, e, held, was, touched, on, where, num_where, unit, load):  # type: ignore[no-untyped-def]
    """Put expert ``e``, or nobody, into a slot, whoever is there; return the transfers that this adds."""
    spent = 0
    old = held[g, j]
    if old >= 0:
        spent -= not was[g, old]
        load[g] -= unit[EACH, old]
        on[g, old] -= 1
        if on[g, old] == 0:
            k = 0
            while where[old, k] != g:
                k += 1
            num_where[old] -= 1
            where[old, k] = where[old, num_where[old]]
    touched[g] = True
    held[g, j] = e if e >= 0 else EMPTY
    if e >= 0:
        spent += not was[g, e]
        load[g] += unit[EACH, e]
        on[g, e] += 1
        if on[g, e] == 1:
            where[e, num_where[e]] = g
            num_where[e] += 1
    return spent
