"""Dormant replicas for slots that no active one needs."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import native
from equipoise.timing.order import row_of

__all__ = ["fill_rows"]


@native
def fill_rows(ordered, held, active, per_node):
    """Put a dormant replica into every empty slot of ``held`` int32 [rows, ranks, slots], -1 where it is empty.

    It is of the expert whose replicas get most tokens, of those that its node holds and its rank does not, if there are
    such. ``active`` bool [rows, ranks, slots] is set to the slots that were not empty.
    """
    num_ranks, slots = held.shape[1:]
    experts = ordered.tokens.shape[1]
    count, near = np.empty(experts, np.int64), np.empty(experts, np.bool_)
    for row in range(len(held)):
        layer = row_of(ordered, row)
        count[:] = 0
        for g in range(num_ranks):
            for s in range(slots):
                active[row, g, s] = held[row, g, s] >= 0
                if active[row, g, s]:
                    count[held[row, g, s]] += 1
        for begin in range(0, num_ranks, per_node):
            near[:] = False
            for g in range(begin, begin + per_node):
                for s in range(slots):
                    if active[row, g, s]:
                        near[held[row, g, s]] = True
            for g in range(begin, begin + per_node):
                for s in range(slots):
                    if not active[row, g, s]:
                        held[row, g, s] = _most_wanted(layer, held[row, g], near, count)
                        count[held[row, g, s]] += 1


@native
def _most_wanted(ordered, held, near, count):
    """Return the expert of ``near`` whose replicas get most tokens and that is not among ``held``, or any of these."""
    best, most = np.int64(held.max()), -1.0
    for i in range(len(count)):
        if ordered.tokens[i] <= most:
            break
        e = ordered.expert[i]
        if near[e] and ordered.tokens[i] > most * count[e] and not _has(held, e):
            best, most = e, ordered.tokens[i] / count[e]
    return best


@native
def _has(held, e):
    for each in held:  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if each == e:
            return True
    return False
