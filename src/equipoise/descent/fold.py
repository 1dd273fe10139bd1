"""The first deal of all replicas: in rounds, each round the largest to the lightest rank."""

from __future__ import annotations

import numpy as np

from equipoise.descent.layer import replica_cost, set_ranks
from equipoise.descent.sorting import sort_ascending
from equipoise.kernels.bits import bits_for
from equipoise.kernels.native import internal
from equipoise.kernels.separate.numba import separate

__all__ = ["fold"]


@internal
def fold(layer):
    """Deal all replicas: in each round every rank gets one, the lightest rank the largest.

    A round gives each rank one replica, so an expert can meet itself only where its replicas run over
    the end of a round; the newcomer then changes places with the nearest rank of the round that
    suits both, and ``separate`` mends what that leaves. Ranks are filled from the last place on, so that they ascend.
    """
    weight, ranks, keys, spare = layer.weight, layer.ranks, layer.scratch.keys, layer.scratch.spare
    value, expert, load, order, replicas = ranks.value, ranks.expert, ranks.load, ranks.order, ranks.replicas
    num_ranks, slots = expert.shape
    experts = len(weight)
    bits, rank_bits = bits_for(experts), bits_for(num_ranks)  # each of its own: a sum has room for one, see fixed_point
    mask, rank_mask = np.int64((1 << bits) - 1), np.int64((1 << rank_bits) - 1)
    _sort_experts(weight, replicas, bits, keys, spare)
    at, left = experts, 0
    e = each = np.int64(0)
    by_load = keys[experts : experts + num_ranks]
    for g in range(num_ranks):
        by_load[g] = g
    clean = True
    for s in range(slots - 1, -1, -1):
        carried = left
        for i in range(num_ranks):
            if left == 0:
                at -= 1
                e, each = experts - 1 - (keys[at] & mask), keys[at] >> bits
                left = replicas[e]
            g = by_load[i] & rank_mask
            by_load[i] += each << rank_bits
            value[g, s], expert[g, s] = each, e
            left -= 1
        for i in range(min(carried, num_ranks)):
            g = by_load[i] & rank_mask
            if _dealt(expert, g, s, expert[g, s]):
                clean &= _trade_in_round(value, expert, by_load, rank_bits, i, s)
        sort_ascending(by_load, spare)
    for i in range(num_ranks):
        order[i] = by_load[i] & rank_mask
        load[order[i]] = by_load[i] >> rank_bits
    if not clean:
        separate(expert, weight, spare)
        set_ranks(layer)


@internal
def _sort_experts(weight, replicas, bits, keys, spare):
    """Set ``keys[:experts]`` to the experts by (replica load, descending number), ascending.

    Those with one replica are in that order already; the others, which are few, are sorted and merged with them.
    """
    experts = len(weight)
    once = more = 0
    for i in range(experts):
        e = experts - 1 - i
        each = (replica_cost(weight, e, replicas[e]) << bits) | i
        if replicas[e] == 1:
            keys[once] = each
            once += 1
        else:
            spare[more] = each
            more += 1
    sort_ascending(spare[:more], spare[more:])  # long enough: they have two slots each, and ``spare`` twice the slots
    at = experts
    while more > 0:
        at -= 1
        if once > 0 and keys[once - 1] > spare[more - 1]:
            once -= 1
            keys[at] = keys[once]
        else:
            more -= 1
            keys[at] = spare[more]


@internal
def _dealt(expert, g, s, e):
    """Whether rank ``g`` got expert ``e`` in a round before that of place ``s``."""
    for t in range(s + 1, expert.shape[1]):  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if expert[g, t] == e:
            return True
    return False


@internal
def _trade_in_round(value, expert, by_load, rank_bits, i, s):
    """Swap what rank ``i`` of the round got in round ``s`` with a near rank's; return whether that could be.

    The ranks before it got the same expert in this round, or have swapped it away because they had it.
    """
    rank_mask = np.int64((1 << rank_bits) - 1)
    g = by_load[i] & rank_mask
    e = expert[g, s]
    for j in range(i + 1, len(by_load)):
        h = by_load[j] & rank_mask
        f = expert[h, s]
        if f != e and not _dealt(expert, h, s, e) and not _dealt(expert, g, s, f):
            more = (value[h, s] - value[g, s]) << rank_bits
            by_load[i] += more
            by_load[j] -= more
            expert[g, s], expert[h, s] = f, e
            value[g, s], value[h, s] = value[h, s], value[g, s]
            return True
    return False
