"""One replica of each expert for small batches, of those that a placement has."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import allocating, native
from equipoise.timing.order import row_of

__all__ = ["thin_rows"]


@native
def thin_rows(ordered, held, level, later):
    """Set ``level`` int64 [rows, ranks, slots] to 0 for one replica of each expert of ``held``, else to ``later``.

    Experts with one replica come first; then it is the one on the rank that takes least so far, hottest experts first.
    """
    num_ranks, slots = held.shape[1:]
    load, count = np.empty(num_ranks), np.empty(ordered.tokens.shape[1], np.int64)
    for row in range(len(held)):
        layer = row_of(ordered, row)
        level[row] = later
        load[:] = 0.0
        count[:] = 0
        for g in range(num_ranks):
            for s in range(slots):
                count[held[row, g, s]] += 1
        for several in range(2):
            for i in range(len(count)):
                if (count[layer.expert[i]] > 1) == (several == 1):
                    g, s = _lightest(held[row], layer.expert[i], load)
                    level[row, g, s] = 0
                    load[g] += layer.single[i]


@allocating
def _lightest(held, e, load):
    """Return the rank and slot of expert ``e`` where ``load`` is least, the first of equals."""
    g, s = -1, -1
    for h in range(held.shape[0]):
        for t in range(held.shape[1]):
            if held[h, t] == e and (g < 0 or load[h] < load[g]):
                g, s = h, t
    return g, s
