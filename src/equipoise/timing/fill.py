"""Dormant replicas for slots that no active one needs."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import allocating, native
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
    count, wanted, each = np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(experts)
    for row in range(len(held)):
        layer = row_of(ordered, row)
        count[:] = 0
        for g in range(num_ranks):
            for s in range(slots):
                active[row, g, s] = held[row, g, s] >= 0
                if active[row, g, s]:
                    count[held[row, g, s]] += 1
        for begin in range(0, num_ranks, per_node):
            there, number = held[row, begin : begin + per_node], 0
            for i in range(experts):
                e = layer.expert[i]
                if per_node == num_ranks or _is_there(there, e):
                    wanted[number], each[number] = e, layer.tokens[i] / count[e]
                    number += 1
                    _settle(wanted, each, number - 1)
            for g in range(begin, begin + per_node):
                for s in range(slots):
                    if not active[row, g, s]:
                        held[row, g, s] = _take(wanted[:number], each, held[row, g], count)


@allocating
def _settle(wanted, each, at):
    """Move what stands at a place forward, to behind what is as much or more."""
    e, tokens = wanted[at], each[at]
    while at > 0 and each[at - 1] < tokens:
        wanted[at], each[at] = wanted[at - 1], each[at - 1]
        at -= 1
    wanted[at], each[at] = e, tokens


@allocating
def _take(wanted, each, held, count):
    """Return the first of ``wanted`` that is not among ``held``, or the first if all are; move it to its new place."""
    at = 0
    while at < len(wanted) - 1 and _has(held, wanted[at]):
        at += 1
    if _has(held, wanted[at]):
        at = 0
    e, tokens = wanted[at], each[at] * count[wanted[at]]
    count[e] += 1
    tokens /= count[e]
    while at + 1 < len(wanted) and each[at + 1] > tokens:
        wanted[at], each[at] = wanted[at + 1], each[at + 1]
        at += 1
    wanted[at], each[at] = e, tokens
    return e


@allocating
def _is_there(held, e):
    """Whether some rank of a node holds expert ``e``."""
    for g in range(len(held)):  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if _has(held[g], e):
            return True
    return False


@allocating
def _has(held, e):
    for each in held:  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if each == e:
            return True
    return False
