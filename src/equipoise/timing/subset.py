"""Which replicas of a placement are active in a smaller batch: some of those that are in a larger one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import native
from equipoise.latency.curve import slot_moments
from equipoise.timing.costs import cost, scale_of
from equipoise.timing.ranks import SPREADS

__all__ = ["choose_rows", "judge_rows"]


class Slots(NamedTuple):
    """The slots of one layer while a subset is chosen, numbered rank after rank.

    expert int32 [slots]; at int64 [slots], the slots of expert 0, then those of 1, ...; first int64 [experts + 1],
    where those of each expert begin in ``at``; awake bool [slots]; load int64 [ranks]; count int64 [experts], awake
    replicas.
    """

    expert: Any
    at: Any
    first: Any
    awake: Any
    load: Any
    count: Any


@native
def choose_rows(curve, tokens, held, may, begin, active):
    """Set ``active`` bool [rows, ranks, slots] to a subset of ``may`` in which the busiest rank takes less time.

    ``held`` int32 [rows, ranks, slots], the expert in each slot. The search begins with ``begin`` bool [rows, ranks,
    slots], in which every expert has an active replica, and takes step by step what helps the busiest rank most.
    """
    _, num_ranks, each = held.shape
    experts, total = tokens.shape[1], num_ranks * each
    at, first = np.empty(total, np.int64), np.empty(experts + 1, np.int64)
    load, count = np.empty(num_ranks, np.int64), np.empty(experts, np.int64)
    for row in range(len(tokens)):
        slots = Slots(held[row].reshape(total), at, first, active[row].reshape(total), load, count)
        scale = scale_of(curve, tokens[row].max())
        _read(slots, begin[row].reshape(total), curve, scale, tokens[row])
        for _ in range(2 * total):
            if not _step(slots, may[row].reshape(total), curve, scale, tokens[row]):
                break


@native
def _read(slots, begin, curve, scale, tokens):
    """Set everything but ``expert`` from it and from the replicas that are awake at the beginning."""
    first, count, each = slots.first, slots.count, len(slots.expert) // len(slots.load)
    first[:] = 0
    count[:] = 0
    for s in range(len(slots.expert)):
        first[slots.expert[s] + 1] += 1
        slots.awake[s] = begin[s]
        count[slots.expert[s]] += begin[s]
    for e in range(len(count)):
        first[e + 1] += first[e]
    for s in range(len(slots.expert) - 1, -1, -1):
        e = slots.expert[s]
        first[e + 1] -= 1  # for now, the next place from the end
        slots.at[first[e + 1]] = s
    for e in range(len(count)):
        first[e] = first[e + 1]
    first[len(count)] = len(slots.expert)
    slots.load[:] = 0
    for e in range(len(count)):
        now = cost(curve, scale, tokens[e], count[e])
        for i in range(first[e], first[e + 1]):
            if slots.awake[slots.at[i]]:
                slots.load[slots.at[i] // each] += now


@native
def _step(slots, may, curve, scale, tokens):
    """Let a replica of the busiest rank sleep, wake one of its experts elsewhere, or both; return whether it helped."""
    load, count, each = slots.load, slots.count, len(slots.expert) // len(slots.load)
    g = 0
    for h in range(1, len(load)):
        if load[h] > load[g]:
            g = h
    best, sleeps, wakes, of = load[g], -1, -1, -1
    for s in range(g * each, (g + 1) * each):
        e = slots.expert[s]
        begin, end = slots.first[e], slots.first[e + 1]
        if not slots.awake[s] or end == begin + 1:
            continue
        now = cost(curve, scale, tokens[e], count[e])
        if count[e] > 1:
            more = cost(curve, scale, tokens[e], count[e] - 1) - now
            after = load[g] - now
            for i in range(begin, end):
                if slots.awake[slots.at[i]] and slots.at[i] != s:
                    after = max(after, load[slots.at[i] // each] + more)
            if after < best:
                best, sleeps, wakes, of = after, s, -1, e
        less = cost(curve, scale, tokens[e], count[e] + 1)
        for i in range(begin, end):
            t = slots.at[i]
            h = t // each
            if slots.awake[t] or not may[t] or h == g:
                continue
            if max(load[g] - now, load[h] + now) < best:
                best, sleeps, wakes, of = max(load[g] - now, load[h] + now), s, t, e
            if max(load[g] - now + less, load[h] + less) < best:
                best, sleeps, wakes, of = max(load[g] - now + less, load[h] + less), -1, t, e
    if of < 0:
        return False
    _change(slots, of, (sleeps, wakes), curve, scale, tokens)
    return True


@native
def _change(slots, e, change, curve, scale, tokens):
    """Let one replica of expert ``e`` sleep, another wake, or both; -1 stands for none."""
    each, (sleeps, wakes) = len(slots.expert) // len(slots.load), change
    before = cost(curve, scale, tokens[e], slots.count[e])
    for i in range(slots.first[e], slots.first[e + 1]):
        if slots.awake[slots.at[i]]:
            slots.load[slots.at[i] // each] -= before
    if sleeps >= 0:
        slots.awake[sleeps] = False
        slots.count[e] -= 1
    if wakes >= 0:
        slots.awake[wakes] = True
        slots.count[e] += 1
    now = cost(curve, scale, tokens[e], slots.count[e])
    for i in range(slots.first[e], slots.first[e + 1]):
        if slots.awake[slots.at[i]]:
            slots.load[slots.at[i] // each] += now


@native
def judge_rows(curve, tokens, held, active, times, likely):
    """Set ``times`` float64 [rows] to the busiest rank's expected time, ``likely`` to that of one step, as in ranks."""
    count = np.empty(tokens.shape[1], np.int64)
    for row in range(len(tokens)):
        count[:] = 0
        for g in range(held.shape[1]):
            for s in range(held.shape[2]):
                if active[row, g, s]:
                    count[held[row, g, s]] += 1
        times[row] = likely[row] = 0.0
        for g in range(held.shape[1]):
            mean = spread = full = 0.0
            for s in range(held.shape[2]):
                if active[row, g, s]:
                    e = held[row, g, s]
                    time, variance, chance = slot_moments(curve, tokens[row, e] / count[e])
                    mean += time
                    spread += variance
                    full += time / chance if chance > 0.0 else 0.0
            times[row] = max(times[row], mean)
            likely[row] = max(likely[row], mean, min(full, mean + SPREADS * np.sqrt(spread)))
