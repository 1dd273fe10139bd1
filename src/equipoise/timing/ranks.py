"""One layer while it is planned in time: the active replicas on its ranks, and operations on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import allocating, inlined
from equipoise.latency.curve import slot_moments
from equipoise.timing.costs import cost

__all__ = [
    "Ranks", "cost_replicas", "holds", "likely", "new_ranks", "put", "read_ranks", "set_count", "sort_rank",
    "two_busiest",
]  # fmt: skip

SPREADS = 1.5
"""Standard deviations above its mean at which a rank is looked at, for the busiest of one step is above its mean."""


class Ranks(NamedTuple):
    """Active replicas on their ranks.

    value int64 [ranks, slots], what each costs, ascending on each rank; expert int64 [ranks, slots], -1 where a slot
    has none; extra bool [ranks, slots], whether the slot is one for replicas that may sleep; load int64 [ranks]; count
    int64 [experts], active replicas.
    """

    value: Any
    expert: Any
    extra: Any
    load: Any
    count: Any


@allocating
def new_ranks(num_ranks, slots, experts):
    """Return room for layers of one shape."""
    return Ranks(
        np.zeros((num_ranks, slots), np.int64),
        np.full((num_ranks, slots), -1, np.int64),
        np.zeros((num_ranks, slots), np.bool_),
        np.zeros(num_ranks, np.int64),
        np.ones(experts, np.int64),
    )


@allocating
def read_ranks(ranks, held, curve, scale, ordered):
    """Make every replica in ``held`` int32 [ranks, slots] active; no slot is an extra one.

    ``held`` has experts by number, ``ranks`` by their place in ``ordered``.
    """
    value, expert, extra, load, count = ranks
    numbered, each, place = np.empty((3, len(count)), np.int64)
    cost_replicas(held, curve, scale, ordered, numbered, each)
    for i in range(len(count)):
        place[ordered.expert[i]] = i
        count[i] = numbered[ordered.expert[i]]
    for g in range(held.shape[0]):
        load[g] = 0
        for s in range(held.shape[1]):
            e = held[g, s]
            expert[g, s], extra[g, s], value[g, s] = place[e], False, each[e]
            load[g] += each[e]
        sort_rank(ranks, g)


@allocating
def cost_replicas(held, curve, scale, ordered, count, each):
    """Set ``count`` and ``each`` int64 [experts], by number, to replicas in ``held`` and what each of them costs."""
    count[:] = 0
    for g in range(held.shape[0]):
        for s in range(held.shape[1]):
            count[held[g, s]] += 1
    for i in range(len(count)):
        e = ordered.expert[i]
        if count[e] > 1:
            each[e] = cost(curve, scale, ordered.tokens[i], count[e])
        else:
            each[e] = np.int64(np.rint(ordered.single[i] * scale))


@inlined
def two_busiest(load):
    """Return the rank with the largest of ``load`` int64 [ranks], the first of equals, and the next largest load."""
    g, second = 0, np.int64(-1)
    for h in range(1, len(load)):
        if load[h] > load[g]:
            g, second = h, load[g]
        elif load[h] > second:
            second = load[h]
    return g, second


@inlined
def holds(expert, g, e):
    """Whether rank ``g`` holds expert ``e``."""
    for s in range(expert.shape[1]):  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if expert[g, s] == e:
            return True
    return False


@inlined
def sort_rank(ranks, g):
    """Sort the slots of rank ``g`` by what they cost."""
    value, expert, extra = ranks.value, ranks.expert, ranks.extra
    for i in range(1, value.shape[1]):
        v, e, x = value[g, i], expert[g, i], extra[g, i]
        j = i - 1
        while j >= 0 and value[g, j] > v:
            value[g, j + 1], expert[g, j + 1], extra[g, j + 1] = value[g, j], expert[g, j], extra[g, j]
            j -= 1
        value[g, j + 1], expert[g, j + 1], extra[g, j + 1] = v, e, x


@inlined
def put(ranks, g, s, e, each):
    """Put expert ``e`` that costs ``each``, or -1 and 0, into slot ``s`` of rank ``g``; move the slot to its place."""
    value, expert, extra, load = ranks.value, ranks.expert, ranks.extra, ranks.load
    load[g] += each - value[g, s]
    x = extra[g, s]
    while s > 0 and value[g, s - 1] > each:
        value[g, s], expert[g, s], extra[g, s] = value[g, s - 1], expert[g, s - 1], extra[g, s - 1]
        s -= 1
    while s + 1 < value.shape[1] and value[g, s + 1] < each:
        value[g, s], expert[g, s], extra[g, s] = value[g, s + 1], expert[g, s + 1], extra[g, s + 1]
        s += 1
    value[g, s], expert[g, s], extra[g, s] = each, e, x


@inlined
def set_count(ranks, e, count, each):
    """Set how many replicas of ``e`` are active, and what each of them costs from now on."""
    value, expert, load = ranks.value, ranks.expert, ranks.load
    ranks.count[e] = count
    for g in range(len(load)):
        changed = False
        for s in range(expert.shape[1]):
            if expert[g, s] == e:
                load[g] += each - value[g, s]
                value[g, s] = each
                changed = True
        if changed:
            sort_rank(ranks, g)


@allocating
def likely(ranks, curve, ordered):
    """Return a measure of what the busiest rank of one step takes, in microseconds.

    Of each rank it is ``SPREADS`` standard deviations above the mean, but no more than where every active
    replica gets a token: in small batches that is what the busiest of many ranks comes to.
    """
    most = 0.0
    for g in range(len(ranks.load)):
        mean = spread = full = 0.0
        for s in range(ranks.expert.shape[1]):
            e = ranks.expert[g, s]
            if e < 0:
                continue
            if ranks.count[e] == 1:
                mean += ordered.single[e]
                spread += ordered.spread[e]
                full += ordered.full[e]
            else:
                time, variance, chance = slot_moments(curve, ordered.tokens[e] / ranks.count[e])
                mean += time
                spread += variance
                full += time / chance if chance > 0.0 else 0.0
        most = max(most, mean, min(full, mean + SPREADS * np.sqrt(spread)))
    return most
