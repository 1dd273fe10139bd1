"""Where a descent starts: replica counts, and a deal of the replicas over the ranks."""

from __future__ import annotations

import numpy as np

from equipoise.descent.state import bits_for, holds, set_ranks, sort_ascending
from equipoise.kernels.native import native, spliced
from equipoise.kernels.separate.numba import separate

__all__ = ["count_least_largest", "count_relaxed", "deal_greedily", "fold", "set_target"]

FULL = np.int64(2**62)  # heavier than any rank with room
SPREAD_LARGEST, SPREAD_HALVES, SPREAD_COLDEST, SPREAD_FITTING = 0, 1, 2, 3


@native
def count_least_largest(weight, num_slots, most, replicas):
    """Set ``replicas`` so that the largest replica is least, and return its size rounded up (t*).

    ``weight`` descends. Bisect on the size until at most three slots are left over, then give those to
    the largest replicas: the same counts as giving out all slots one by one.
    """
    experts = len(weight)
    if weight[0] == 0:
        _spread_evenly(num_slots, most, replicas)
        return np.int64(0)
    low, high = weight.sum() / num_slots * (1.0 - 1e-9), np.float64(weight[0])
    for _ in range(60):
        middle = 0.5 * (low + high)
        need = experts
        for e in range(experts):
            if weight[e] <= middle:
                break
            need += min(np.int64(np.ceil(weight[e] / middle)), most) - 1
        if need <= num_slots:
            high = middle
            if num_slots - need <= 3:
                break
        else:
            low = middle
    left = num_slots - experts
    replicas[:] = 1
    for e in range(experts):
        if weight[e] <= high:
            break
        replicas[e] = max(1, min(np.int64(np.ceil(weight[e] / high)), most))
        left -= replicas[e] - 1
    _give_to_largest(weight, left, most, replicas)
    largest = np.int64(0)
    for e in range(experts):
        largest = max(largest, -(-weight[e] // replicas[e]))
        if replicas[e] == 1:
            break  # whoever follows is no larger
    return largest


@native
def set_target(weight, num_ranks, slots, floor, max_gap, replicas):
    """Set ``replicas`` to the best counts; return t*, the lower bound, and the busiest rank that is near enough."""
    largest = count_least_largest(weight, num_ranks * slots, num_ranks, replicas)
    bound = max(-(-weight.sum() // num_ranks), largest, floor)
    return largest, bound, np.int64(bound * (1.0 + max_gap * (1.0 - 1e-9)))  # rounding cannot lift the gap above it


@spliced
def _spread_evenly(num_slots, most, replicas):
    experts = len(replicas)
    for e in range(experts):
        replicas[e] = num_slots // experts + (e < num_slots % experts)


@native
def _give_to_largest(weight, left, most, replicas):
    """Give ``left`` slots, one by one, to the expert with the largest replicas."""
    while left > 0:
        top, at = -1.0, 0
        for e in range(len(weight)):
            each = weight[e] / replicas[e] if replicas[e] < most else -1.0
            if each > top:
                top, at = each, e
            if replicas[e] == 1:
                break  # whoever follows is no larger
        replicas[at] += 1
        left -= 1


@native
def count_relaxed(weight, num_slots, most, largest, target, rule, replicas):
    """Set ``replicas`` so that no replica exceeds ``largest``, and spend what is left by ``rule``.

    SPREAD_LARGEST: second replicas for the largest experts that have one. SPREAD_HALVES: to the expert whose
    replicas a slot makes smaller by most. SPREAD_COLDEST: second replicas for the coldest experts, which
    makes light company for heavy replicas. SPREAD_FITTING: second replicas for the largest experts whose halves are
    such company, light enough for the rank of the largest replica to stay within ``target``.
    """
    experts = len(weight)
    left, heaviest = num_slots, 0.0
    for e in range(experts):
        replicas[e] = max(1, min(np.int64(np.ceil(weight[e] / largest)), most))
        left -= replicas[e]
        heaviest = max(heaviest, weight[e] / replicas[e])
    if rule == SPREAD_HALVES:
        while left > 0:
            top, at = -1.0, 0
            for e in range(experts):
                less = weight[e] / (replicas[e] * (replicas[e] + 1.0)) if replicas[e] < most else -1.0
                if less > top:
                    top, at = less, e
            replicas[at] += 1
            left -= 1
    else:
        for i in range(experts):
            e = experts - 1 - i if rule == SPREAD_COLDEST else i
            if rule == SPREAD_FITTING and weight[e] > 2 * (target - heaviest):
                continue
            if left > 0 and replicas[e] == 1 and most > 1:
                replicas[e] = 2
                left -= 1
    _give_to_largest(weight, left, most, replicas)


@native
def fold(weight, ranks, keys, spare):
    """Deal all replicas: in each round every rank gets one, the lightest rank the largest.

    A round gives each rank one replica, so an expert can meet itself only where its replicas run over
    the end of a round; the newcomer then changes places with the nearest rank of the round that
    suits both, and ``separate`` mends what that leaves. Ranks are filled from the last place on, so that they ascend.
    ``keys`` and ``spare`` are work space.
    """
    value, expert, load, order, replicas = ranks.value, ranks.expert, ranks.load, ranks.order, ranks.replicas
    num_ranks, slots = expert.shape
    experts = len(weight)
    bits, rank_bits = (
        bits_for(experts),
        bits_for(num_ranks),
    )  # each of its own: a sum has room for a rank, see fixed_point
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
            if holds(expert[g, s + 1 :], expert[g, s]):
                clean &= _trade_in_round(value, expert, by_load, rank_bits, i, s)
        sort_ascending(by_load, spare)
    for i in range(num_ranks):
        order[i] = by_load[i] & rank_mask
        load[order[i]] = by_load[i] >> rank_bits
    if not clean:
        separate(expert, weight)
        set_ranks(ranks, weight, by_load, spare)


@native
def _sort_experts(weight, replicas, bits, keys, spare):
    """Set ``keys[:experts]`` to the experts by (replica load, descending number), ascending.

    Those with one replica are in that order already; the others, which are few, are sorted and merged with them.
    """
    experts = len(weight)
    once = more = 0
    for i in range(experts):
        e = experts - 1 - i
        if replicas[e] == 1:
            keys[once] = (weight[e] << bits) | i
            once += 1
        else:
            spare[more] = ((weight[e] // replicas[e]) << bits) | i
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


@native
def deal_greedily(weight, ranks, keys, limit, expert, spare):
    """Fill ``expert`` [ranks, slots] as the published method does, each replica to the lightest rank with room.

    Returns whether every rank stays below ``limit``; if one does not, ``expert`` is left half filled. The ranks wait in
    a sorted line: those at its head take one replica each until one that just took is lighter than the next, and then
    go back to where they belong. The experts are sorted here, whoever sorted them before: ``keys`` is work space, and
    what was improved since has written to it.
    """
    num_ranks, slots = expert.shape
    experts = len(weight)
    bits, rank_bits = bits_for(experts), bits_for(num_ranks)
    _sort_experts(weight, ranks.replicas, bits, keys, spare)
    mask, rank_mask = np.int64((1 << bits) - 1), np.int64((1 << rank_bits) - 1)
    line, size = keys[experts : experts + num_ranks], ranks.order
    for g in range(num_ranks):
        line[g] = g
        size[g] = 0
    at, left = experts, 0
    e = each = np.int64(0)
    dealt = 0
    while True:
        took, lightest = 0, FULL
        while took < num_ranks and line[took] < lightest:
            if left == 0:
                at -= 1
                e, each = experts - 1 - (keys[at] & mask), keys[at] >> bits
                left = ranks.replicas[e]
            left -= 1
            g = line[took] & rank_mask
            load = (line[took] >> rank_bits) + each
            if load >= limit:
                return False
            expert[g, size[g]] = e
            size[g] += 1
            line[took] = (load << rank_bits) | g if size[g] < slots else FULL + g
            lightest = min(lightest, line[took])
            took += 1
        dealt += took
        if dealt == num_ranks * slots:
            return True
        if took > num_ranks // 6:
            sort_ascending(line, spare)
            continue
        for i in range(took - 1, -1, -1):
            key, j = line[i], i + 1
            while j < num_ranks and line[j] < key:
                line[j - 1] = line[j]
                j += 1
            line[j - 1] = key


@spliced
def _trade_in_round(value, expert, by_load, rank_bits, i, s):
    """Swap what rank ``i`` of the round got in round ``s`` with a near rank's; return whether that could be."""
    rank_mask = np.int64((1 << rank_bits) - 1)
    g = by_load[i] & rank_mask
    e = expert[g, s]
    for off in range(1, len(by_load)):
        for j in (i + off, i - off):
            if 0 <= j < len(by_load):
                h = by_load[j] & rank_mask
                f = expert[h, s]
                if f != e and not holds(expert[h, s + 1 :], e) and not holds(expert[g, s + 1 :], f):
                    more = (value[h, s] - value[g, s]) << rank_bits
                    by_load[i] += more
                    by_load[j] -= more
                    expert[g, s], expert[h, s] = f, e
                    value[g, s], value[h, s] = value[h, s], value[g, s]
                    return True
    return False
