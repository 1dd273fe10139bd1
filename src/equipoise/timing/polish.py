"""One placement for several batch sizes: swaps that make one of them faster.

Slots are swapped with what is in them: whether the replica is active in each batch goes along. Of the batch sizes, the
one comes first whose busiest rank is the slowest against what is asked of it. Others may get a little slower for it,
but no slower than what is asked of them.
"""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import native
from equipoise.timing.costs import cost, scale_of

__all__ = ["polish_rows"]

SLOTS_A_SWAP = 2  # no more swaps than that many slots of a layer make
NEAR = 0.998  # no swaps are looked for where all batches are so fast, against what is asked
GIVEN = 1.01  # what a batch may take, in what it took at the beginning, so that another gets faster


@native
def polish_rows(curve, tokens, held, active, asked):
    """Swap slots of ``held`` int32 [rows, ranks, slots], and ``active`` bool [batches, rows, ranks, slots] with them.

    ``tokens`` float64 [batches, rows, experts]; ``asked`` float64 [batches, rows], a time of the busiest rank, without
    what is fixed, above 0.
    """
    batches, rows = tokens.shape[:2]
    num_ranks, slots = held.shape[1:]
    value, load = np.empty((batches, num_ranks, slots), np.int64), np.empty((batches, num_ranks), np.int64)
    goal, top, limit = np.empty(batches), np.empty(batches, np.int64), np.empty(batches, np.int64)
    for row in range(rows):
        for b in range(batches):
            scale = scale_of(curve, tokens[b, row].max())
            goal[b] = max(asked[b, row] * scale, 1.0)
            _read(curve, scale, tokens[b, row], held[row], active[b, row], value[b])
            for g in range(num_ranks):
                load[b, g] = value[b, g].sum()
            top[b] = load[b].max()
            limit[b] = max(top[b], np.int64(min(goal[b], GIVEN * top[b])))
        for _ in range(num_ranks * slots // SLOTS_A_SWAP):
            if (top <= goal * NEAR).all():
                break
            if not _swap_once(held[row], active, row, value, load, (goal, top, limit)):
                break
            for b in range(batches):
                if top[b] > goal[b]:
                    limit[b] = min(limit[b], top[b])


@native
def _read(curve, scale, tokens, held, active, value):
    """Set ``value`` int64 [ranks, slots] to what each slot costs in one batch."""
    count = np.zeros(len(tokens), np.int64)
    for g in range(held.shape[0]):
        for s in range(held.shape[1]):
            count[held[g, s]] += active[g, s]
    for g in range(held.shape[0]):
        for s in range(held.shape[1]):
            e = held[g, s]
            value[g, s] = cost(curve, scale, tokens[e], count[e]) if active[g, s] else 0


@native
def _swap_once(held, active, row, value, load, limits):
    """Make the swap that helps the busiest rank of a batch most, of the first batch where one does, if any does."""
    goal, top, limit = limits
    batches = len(top)
    for b in np.argsort(-(top / goal)):
        g = int(np.argmax(load[b]))
        best, best_h, best_s, best_t = top[b], -1, -1, -1
        for h in range(load.shape[1]):
            if h == g or (load[b, g] + load[b, h] + 1) // 2 >= best:
                continue
            for s in range(held.shape[1]):
                if value[b, g, s] == 0:
                    continue
                for t in range(held.shape[1]):
                    d = value[b, g, s] - value[b, h, t]
                    after = max(load[b, g] - d, load[b, h] + d)
                    if d > 0 and after < best and _may(held, value, load, limit, (b, g, s, h, t)):
                        best, best_h, best_s, best_t = after, h, s, t
        if best_h < 0:
            continue
        h, s, t = best_h, best_s, best_t
        held[g, s], held[h, t] = held[h, t], held[g, s]
        for c in range(batches):
            d = value[c, g, s] - value[c, h, t]
            load[c, g] -= d
            load[c, h] += d
            value[c, g, s], value[c, h, t] = value[c, h, t], value[c, g, s]
            active[c, row, g, s], active[c, row, h, t] = active[c, row, h, t], active[c, row, g, s]
            top[c] = load[c].max()
        return True
    return False


@native
def _may(held, value, load, limit, swap):
    """Whether no rank then holds an expert twice and no other batch goes over its limit."""
    b, g, s, h, t = swap
    for c in range(len(limit)):
        d = value[c, g, s] - value[c, h, t]
        if c != b and (load[c, g] - d > limit[c] or load[c, h] + d > limit[c]):
            return False
    for i in range(held.shape[1]):
        if (i != t and held[h, i] == held[g, s]) or (i != s and held[g, i] == held[h, t]):
            return False
    return True
