"""A first placement of active replicas: the costliest first, each to the lightest rank that may take it (LPT)."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import allocating
from equipoise.latency.curve import most_tokens
from equipoise.timing.costs import cost, least_replicas
from equipoise.timing.ranks import holds, sort_rank

__all__ = ["count_for", "deal"]


@allocating
def count_for(curve, tokens, num_ranks, num_slots, time, count):
    """Set ``count`` to the fewest replicas that take no longer than ``time`` each; return whether the slots hold them.

    ``tokens`` float64 [experts] descends.
    """
    most, left = most_tokens(curve, time), num_slots - len(tokens)
    count[:] = 1
    for e in range(len(tokens)):
        if tokens[e] <= most:
            break
        count[e] = min(least_replicas(tokens[e], most, num_slots), num_ranks)
        left -= count[e] - 1
        if left < 0:
            return False
    return True


@allocating
def deal(ranks, curve, scale, ordered, first):
    """Place ``ranks.count`` active replicas of ``ordered`` experts, fewer where no further rank has room for one.

    ``first`` slots of each rank are for one replica of each expert, so that the others may sleep; where all slots of a
    rank are, any slot takes any replica.
    """
    value, expert, extra, load, count = ranks
    num_ranks, slots = value.shape
    apart = first < slots
    used, order = np.zeros((2, num_ranks), np.int64), np.arange(num_ranks)
    value[:] = 0
    expert[:] = -1
    load[:] = 0
    for g in range(num_ranks):
        for s in range(slots):
            extra[g, s] = s >= first
    each = np.empty(len(count), np.int64)
    for e in range(len(count)):
        several = count[e] > 1
        each[e] = cost(curve, scale, ordered.tokens[e], count[e]) if several else np.rint(ordered.single[e] * scale)
    for e in _costliest_first(each):
        for copy in range(count[e]):
            kind = 1 if apart and copy > 0 else 0
            room = slots - first if kind == 1 else first
            place = 0
            while used[kind, order[place]] >= room or (copy > 0 and holds(expert, order[place], e)):
                place += 1
                if place == num_ranks:
                    break
            if place == num_ranks:  # every rank with room holds the expert already
                _recount(ranks, e, copy, cost(curve, scale, ordered.tokens[e], copy))
                break
            g = order[place]
            s = first - 1 - used[kind, g] if kind == 0 else slots - 1 - used[kind, g]
            value[g, s], expert[g, s] = each[e], e
            load[g] += each[e]
            used[kind, g] += 1
            while place + 1 < num_ranks and load[order[place + 1]] < load[g]:
                order[place] = order[place + 1]
                place += 1
            order[place] = g
    for g in range(num_ranks):
        sort_rank(ranks, g)


@allocating
def _costliest_first(each):
    """Return the experts by descending cost of a replica; they nearly are, for few have several."""
    order = np.arange(len(each))
    for i in range(1, len(order)):
        j = i - 1
        while j >= 0 and each[order[j]] < each[i]:
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = i
    return order


@allocating
def _recount(ranks, e, count, each):
    """Set how many replicas of ``e`` are active where ranks are not sorted yet."""
    ranks.count[e] = count
    for g in range(len(ranks.load)):
        for s in range(ranks.expert.shape[1]):
            if ranks.expert[g, s] == e:
                ranks.load[g] += each - ranks.value[g, s]
                ranks.value[g, s] = each
