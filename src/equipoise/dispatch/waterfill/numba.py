"""Shares that leave the busiest rank least, native. See the folder's contract."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.waterfill import LEAST_GAIN, LOOK_EVERY, SWEEPS
from equipoise.kernels.native import allocating, native

__all__ = ["pour"]


def pour(
    physical_to_logical: NDArray[np.int32], load: NDArray[np.float64], num_ranks: int, gap: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the shares of each layer's slots and the ranks that prove them; see the folder's contract."""
    shares, tight = np.zeros(physical_to_logical.shape), np.ones((len(load), num_ranks), np.bool_)
    # Copies, which may be written: as such, connecting has them compiled too.
    table, tokens = np.array(physical_to_logical, np.int32, order="C"), np.array(load, np.float64, order="C")
    _pour(table, tokens, gap, shares, tight)
    return shares, tight


@native
def _pour(table, load, gap, shares, tight):
    num_ranks = tight.shape[1]
    for layer in range(len(table)):
        graph = _join(table[layer], load[layer], num_ranks)
        first, expert, rank, _, flow, carried, _ = graph
        low, sweep, even = 0.0, 0, carried.max()
        order = np.arange(num_ranks)
        while True:
            low = _look(graph, load[layer], order, low, tight[layer])
            if carried.max() <= low * (1.0 + gap) or sweep >= SWEEPS:
                break
            for _ in range(LOOK_EVERY):
                _sweep(first, expert, rank, flow, carried, load[layer], sweep % 2 == 1)
                sweep += 1
        if carried.max() > low * (1.0 + gap):
            _push(first, rank, flow, carried, (low, gap), tight[layer])
        _share_out(table[layer], graph, shares[layer], carried.max() >= even * (1.0 - LEAST_GAIN))


@allocating
def _join(slots, load, num_ranks):
    """Return which ranks each replicated expert joins, in compressed rows, and what all ranks carry with even shares.

    Row k is ``expert[k]``, on the ranks ``rank[first[k]:first[k + 1]]``, ascending, in ``copies`` slots of each, which
    get ``flow`` of its tokens; ranks carry ``carried``, and ``fixed`` of it is from experts that have one rank.
    """
    experts, slots_per_rank = len(load), len(slots) // num_ranks
    replicas, ranks_of, last = np.zeros(experts, np.int64), np.zeros(experts, np.int64), np.full(experts, -1)
    for slot in range(len(slots)):
        e, g = slots[slot], slot // slots_per_rank
        if e >= 0:
            replicas[e] += 1
            if last[e] != g:
                ranks_of[e] += 1
                last[e] = g
    number, entries = 0, 0
    row = np.full(experts, -1)
    for e in range(experts):
        if ranks_of[e] > 1 and load[e] > 0:
            row[e] = number
            number += 1
            entries += ranks_of[e]
    first, expert = np.zeros(number + 1, np.int64), np.zeros(number, np.int64)
    for e in range(experts):
        if row[e] >= 0:
            expert[row[e]] = e
            first[row[e] + 1] = first[row[e]] + ranks_of[e]
    rank, copies, flow = np.full(entries, -1), np.zeros(entries, np.int64), np.zeros(entries)
    carried, fixed, end = np.zeros(num_ranks), np.zeros(num_ranks), first[:number].copy()
    for slot in range(len(slots)):
        e, g = slots[slot], slot // slots_per_rank
        if e < 0:
            continue
        each = load[e] / replicas[e]
        carried[g] += each
        k = row[e]
        if k < 0:
            fixed[g] += each
            continue
        if end[k] == first[k] or rank[end[k] - 1] != g:
            rank[end[k]] = g
            end[k] += 1
        copies[end[k] - 1] += 1
        flow[end[k] - 1] += each
    return first, expert, rank, copies, flow, carried, fixed


@allocating
def _sweep(first, expert, rank, flow, carried, load, backward):
    """Pour every replicated expert anew over its ranks."""
    number = len(expert)
    below, which = np.empty(len(carried)), np.empty(len(carried), np.int64)
    for step in range(number):
        k = number - 1 - step if backward else step
        size = 0
        for i in range(first[k], first[k + 1]):
            without = carried[rank[i]] - flow[i]
            at = size
            while at > 0 and below[at - 1] > without:
                below[at], which[at] = below[at - 1], which[at - 1]
                at -= 1
            below[at], which[at] = without, i
            size += 1
        total, wet = load[expert[k]], 0
        level = 0.0
        while wet < size and (wet == 0 or level > below[wet]):
            total += below[wet]
            wet += 1
            level = total / wet
        for at in range(size):
            i = which[at]
            flow[i] = level - below[at] if at < wet else 0.0
            carried[rank[i]] = level if at < wet else below[at]


@allocating
def _look(graph, load, order, low, tight):
    """Return the most that one of the sets of the k busiest ranks must carry on average, and mark the set.

    Or ``low``, where that is no less. ``order`` is kept sorted.
    """
    first, expert, rank, _, _, carried, fixed = graph
    number = len(order)
    for at in range(1, number):
        g = order[at]
        while at > 0 and (
            carried[order[at - 1]] < carried[g] or (carried[order[at - 1]] == carried[g] and order[at - 1] > g)
        ):
            order[at] = order[at - 1]
            at -= 1
        order[at] = g
    place, inside = np.empty(number, np.int64), np.empty(number)
    for at in range(number):
        place[order[at]] = at
        inside[at] = fixed[order[at]]
    for k in range(len(expert)):
        last = 0
        for i in range(first[k], first[k + 1]):
            last = max(last, place[rank[i]])
        inside[last] += load[expert[k]]
    size, total = 0, 0.0
    for at in range(number):
        total += inside[at]
        if total / (at + 1) > low:
            low, size = total / (at + 1), at + 1
    if size > 0:
        for g in range(number):
            tight[g] = place[g] < size
    return low


@allocating
def _push(first, rank, flow, carried, limits, tight):
    """Push tokens along shortest paths until no rank is above the bound, which rises where there is no path."""
    low, gap = limits
    ranks, entries = len(carried), len(rank)
    row, after, head = np.empty(entries, np.int64), np.empty(entries, np.int64), np.full(ranks, -1)
    for k in range(len(first) - 1):
        for i in range(first[k], first[k + 1]):
            row[i], after[i], head[rank[i]] = k, head[rank[i]], i
    leaves, enters, queue = np.empty(ranks, np.int64), np.empty(ranks, np.int64), np.empty(ranks, np.int64)
    for _ in range(ranks * (entries + ranks)):  # more than shortest augmenting paths need
        source = int(np.argmax(carried))
        if carried[source] <= low * (1.0 + gap):
            break
        goal, seen = _find_path(first, rank, flow, carried, (row, after, head), (leaves, enters, queue), low)
        if goal < 0:
            total = 0.0
            tight[:] = False
            for at in range(seen):
                total += carried[queue[at]]
                tight[queue[at]] = True
            low = total / seen
            continue
        moved = min(carried[source] - low, low - carried[goal])
        g = goal
        while g != source:
            moved = min(moved, flow[leaves[g]])
            g = rank[leaves[g]]
        carried[source] -= moved
        carried[goal] += moved
        g = goal
        while g != source:
            flow[leaves[g]] -= moved
            flow[enters[g]] += moved
            g = rank[leaves[g]]


@allocating
def _find_path(first, rank, flow, carried, joins, path, low):
    """Return the nearest rank below ``low`` from the busiest, or -1, and how many ranks of the queue were reached.

    A rank g is reached by the tokens of the entry ``leaves[g]``, on another rank, going to the entry ``enters[g]``.
    """
    row, after, head = joins
    leaves, enters, queue = path
    source = int(np.argmax(carried))
    reached = np.zeros(len(carried), np.bool_)
    reached[source] = True
    queue[0] = source
    seen, at = 1, 0
    while at < seen:
        i = head[queue[at]]
        at += 1
        while i >= 0:
            if flow[i] > 0.0:
                for j in range(first[row[i]], first[row[i] + 1]):
                    g = rank[j]
                    if not reached[g]:
                        reached[g], leaves[g], enters[g] = True, i, j
                        queue[seen] = g
                        seen += 1
                        if carried[g] < low:
                            return g, seen
            i = after[i]
    return -1, seen


@allocating
def _share_out(slots, graph, shares, evenly):
    """Set what each slot gets of its expert: by the flow of its rank, and evenly where that is asked or none is."""
    first, expert, rank, copies, flow, carried, _ = graph
    experts = 0
    for e in slots:
        experts = max(experts, e + 1)
    count, row, slots_per_rank = np.zeros(experts, np.int64), np.full(experts, -1), len(slots) // len(carried)
    for e in slots:
        if e >= 0:
            count[e] += 1
    at, total = np.zeros(len(expert), np.int64), np.zeros(len(expert))
    for k in range(len(expert)):
        row[expert[k]], at[k] = k, first[k]
        for i in range(first[k], first[k + 1]):
            total[k] += flow[i]
    for slot in range(len(slots)):
        e = slots[slot]
        if e < 0:
            continue
        k = row[e]
        if evenly or k < 0 or total[k] == 0.0:
            shares[slot] = 1.0 / count[e]
            continue
        while rank[at[k]] != slot // slots_per_rank:
            at[k] += 1
        shares[slot] = flow[at[k]] / total[k] / copies[at[k]]
