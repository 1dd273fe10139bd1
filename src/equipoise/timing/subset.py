"""Which replicas of a placement are active in a smaller batch: some of those that are in a larger one."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import native
from equipoise.latency.curve import slot_moments
from equipoise.timing.costs import cost, scale_of
from equipoise.timing.ranks import SPREADS

__all__ = ["choose_rows", "fill_rows", "judge_rows"]


@native
def choose_rows(curve, tokens, held, may, begin, active):
    """Set ``active`` bool [rows, ranks, slots] to a subset of ``may`` in which the busiest rank takes less time.

    ``held`` int32 [rows, ranks, slots], the expert in each slot. The search begins with ``begin`` bool [rows, ranks,
    slots], in which every expert has an active replica, and takes step by step what helps the busiest rank most.
    """
    _, num_ranks, slots = held.shape
    load, count = np.empty(num_ranks, np.int64), np.empty(tokens.shape[1], np.int64)
    for row in range(len(tokens)):
        scale = scale_of(curve, tokens[row])
        awake = active[row]
        count[:] = 0
        for g in range(num_ranks):
            for s in range(slots):
                awake[g, s] = begin[row, g, s]
                if awake[g, s]:
                    count[held[row, g, s]] += 1
        for g in range(num_ranks):
            load[g] = 0
            for s in range(slots):
                if awake[g, s]:
                    e = held[row, g, s]
                    load[g] += cost(curve, scale, tokens[row, e], count[e])
        for _ in range(2 * num_ranks * slots):
            if not _step(curve, scale, tokens[row], (held[row], may[row]), awake, load, count):
                break


@native
def _step(curve, scale, tokens, slots, awake, load, count):
    """Let a replica of the busiest rank sleep, wake one of its experts elsewhere, or both; return whether it helped."""
    held, may = slots
    g = 0
    for h in range(1, len(load)):
        if load[h] > load[g]:
            g = h
    best, best_s, best_h, best_t, best_off = load[g], -1, -1, -1, False
    for s in range(held.shape[1]):
        if not awake[g, s]:
            continue
        e = held[g, s]
        now = cost(curve, scale, tokens[e], count[e])
        if count[e] > 1:
            more = cost(curve, scale, tokens[e], count[e] - 1) - now
            after = load[g] - now
            for h in range(len(load)):
                for t in range(held.shape[1]):
                    if held[h, t] == e and awake[h, t] and not (h == g and t == s):
                        after = max(after, load[h] + more)
            if after < best:
                best, best_s, best_h, best_t, best_off = after, s, -1, -1, True
        less = cost(curve, scale, tokens[e], count[e] + 1)
        for h in range(len(load)):
            for t in range(held.shape[1]):
                if held[h, t] != e or awake[h, t] or not may[h, t] or h == g:
                    continue
                after = max(load[g] - now, load[h] + now)
                if after < best:
                    best, best_s, best_h, best_t, best_off = after, s, h, t, True
                after = max(load[g] - now + less, load[h] + less)
                if after < best:
                    best, best_s, best_h, best_t, best_off = after, s, h, t, False
    if best_s < 0:
        return False
    e = held[g, best_s]
    before = cost(curve, scale, tokens[e], count[e])
    for h in range(len(load)):
        for t in range(held.shape[1]):
            if held[h, t] == e and awake[h, t]:
                load[h] -= before
    if best_off:
        awake[g, best_s] = False
    if best_h >= 0:
        awake[best_h, best_t] = True
    count[e] += (best_h >= 0) - (1 if best_off else 0)
    now = cost(curve, scale, tokens[e], count[e])
    for h in range(len(load)):
        for t in range(held.shape[1]):
            if held[h, t] == e and awake[h, t]:
                load[h] += now
    return True


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


@native
def fill_rows(tokens, held, active):
    """Put a dormant replica into every empty slot of ``held`` int32 [rows, ranks, slots], -1 where it is empty.

    It is of the expert whose replicas get most tokens, of those that the rank does not hold, if there are such.
    """
    experts = tokens.shape[1]
    count = np.empty(experts, np.int64)
    for row in range(len(tokens)):
        count[:] = 0
        for g in range(held.shape[1]):
            for s in range(held.shape[2]):
                if held[row, g, s] >= 0:
                    count[held[row, g, s]] += 1
        for g in range(held.shape[1]):
            for s in range(held.shape[2]):
                active[row, g, s] = held[row, g, s] >= 0
        for g in range(held.shape[1]):
            for s in range(held.shape[2]):
                if held[row, g, s] >= 0:
                    continue
                best, most = np.int64(g % experts), -1.0
                for e in range(experts):
                    each = tokens[row, e] / count[e]
                    if each > most and not _has(held[row, g], e):
                        best, most = np.int64(e), each
                held[row, g, s] = best
                count[best] += 1


@native
def _has(held, e):
    for each in held:  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if each == e:
            return True
    return False
