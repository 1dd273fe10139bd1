"""The ranks of one row while they are improved, and the few operations that keep them in order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.descent import STAGES
from equipoise.kernels.native import native

__all__ = [
    "Ranks",
    "Space",
    "add_load",
    "exchange",
    "forget_changes",
    "holds",
    "new_ranks",
    "new_space",
    "replace",
    "set_ranks",
    "sort_ascending",
    "sort_rank",
    "unpack",
]


SWAPS, PAIRS, CHAINS, RELAXED, SQUEEZED, FITTING, CONVERTED, PAIRED = range(len(STAGES))
NEVER = np.int64(2**62)
LINKS = 12  # first swaps that ``chain`` tries
RUN = 32  # keys that are sorted by counting
MOST_PAIRED = 256  # slots of a rank; so many are level without exchanging pairs, of which there is the square


class Ranks(NamedTuple):
    """One row being planned. Experts are numbered by descending load here.

    value int64 [ranks, slots], the load of each replica, ascending on each rank; expert int64 [ranks, slots];
    load int64 [ranks]; order int64 [ranks], the ranks by (load, rank); replicas int64 [experts].
    changes int64 [1], how many exchanges there were; changed, stuck int64 [ranks], the number of the exchange at
    which a rank last changed, and after which it was found to have no swap with any lighter rank, or -1.
    """

    value: Any
    expert: Any
    load: Any
    order: Any
    replicas: Any
    changes: Any
    changed: Any
    stuck: Any


@native
def new_ranks(num_ranks, slots, experts):  # type: ignore[no-untyped-def]
    """Return room for one row."""
    return Ranks(
        np.empty((num_ranks, slots), np.int64),
        np.empty((num_ranks, slots), np.int64),
        np.empty(num_ranks, np.int64),
        np.empty(num_ranks, np.int64),
        np.empty(experts, np.int64),
        np.empty(1, np.int64),
        np.empty(num_ranks, np.int64),
        np.empty(num_ranks, np.int64),
    )


class Space(NamedTuple):
    """Work space for one row: nothing in it outlives the call that writes it.

    keys, spare int64 [the most that is sorted at once]; sums int64 [3, pairs of slots]; links int64 [links, 4]; parts
    int64 [ranks, slots + pairs of slots]; full bool [ranks]; pool int64 [4, ranks].
    """

    keys: Any
    spare: Any
    sums: Any
    links: Any
    parts: Any
    full: Any
    pool: Any


@native
def new_space(num_ranks, slots, experts, links, squeezed):  # type: ignore[no-untyped-def]
    """Return work space for rows of one shape; ``squeezed`` is how many ranks are squeezed, none or all."""
    pairs = slots * (slots - 1) // 2 if slots <= MOST_PAIRED else 0
    most = max(experts + num_ranks, num_ranks * slots, pairs)
    return Space(
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty((3, pairs), np.int64),
        np.empty((links, 4), np.int64),
        np.empty((squeezed, slots + pairs), np.int64),
        np.empty(num_ranks, np.bool_),
        np.empty((4, num_ranks), np.int64),
    )


@native
def sort_ascending(keys, spare):  # type: ignore[no-untyped-def]
    """Sort ``keys``, which all differ, in place; ``spare`` is at least as long. Runs of 32 are sorted, then merged.

    In a run, each key's place is how many are lower, counted against all: no branch depends on the keys,
    and the loops become vector instructions. Runs that are in order already are left alone, so keys that are
    nearly sorted cost little.
    """
    n = len(keys)
    for start in range(0, n, RUN):
        _sort_run(keys[start : start + RUN], spare)
    width = RUN
    while width < n:
        for low in range(0, n - width, 2 * width):
            middle, high = low + width, min(low + 2 * width, n)
            if keys[middle - 1] <= keys[middle]:
                continue
            for i in range(low, middle):
                spare[i] = keys[i]
            i, j, k = low, middle, low
            while i < middle and j < high:  # what is left on the right is in place already
                if spare[i] <= keys[j]:
                    keys[k] = spare[i]
                    i += 1
                else:
                    keys[k] = keys[j]
                    j += 1
                k += 1
            while i < middle:
                keys[k] = spare[i]
                i += 1
                k += 1
        width *= 2


@native
def _sort_run(keys, spare):  # type: ignore[no-untyped-def]
    n = len(keys)
    steps_down = 0
    for i in range(1, n):
        steps_down += np.int64(keys[i - 1] > keys[i])
    if steps_down == 0:
        return
    for i in range(n):
        key, lower = keys[i], np.int64(0)
        for j in range(n):
            lower += np.int64(keys[j] < key)
        spare[lower] = key
    for i in range(n):
        keys[i] = spare[i]


@native
def holds(experts, e):  # type: ignore[no-untyped-def]
    """Whether ``e`` is among ``experts``."""
    for other in experts:  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if other == e:
            return True
    return False


@native
def sort_rank(value, expert):  # type: ignore[no-untyped-def]
    """Sort one rank's replicas by load."""
    for i in range(1, len(value)):
        v, e = value[i], expert[i]
        j = i - 1
        while j >= 0 and value[j] > v:
            value[j + 1], expert[j + 1] = value[j], expert[j]
            j -= 1
        value[j + 1], expert[j + 1] = v, e


@native
def replace(value, expert, at, v, e):  # type: ignore[no-untyped-def]
    """Put replica (v, e) into one rank in place of the one at ``at``, and keep the rank sorted."""
    while at + 1 < len(value) and value[at + 1] < v:
        value[at], expert[at] = value[at + 1], expert[at + 1]
        at += 1
    while at > 0 and value[at - 1] > v:
        value[at], expert[at] = value[at - 1], expert[at - 1]
        at -= 1
    value[at], expert[at] = v, e


@native
def add_load(ranks, g, more):  # type: ignore[no-untyped-def]
    """Add ``more`` to the load of rank ``g`` and move it to its place in ``order``."""
    load, order = ranks.load, ranks.order
    at, above = 0, len(order)
    while at + 1 < above:
        middle = (at + above) // 2
        h = order[middle]
        if load[h] < load[g] or (load[h] == load[g] and h <= g):
            at = middle
        else:
            above = middle
    load[g] += more
    while at + 1 < len(order) and (
        load[order[at + 1]] < load[g] or (load[order[at + 1]] == load[g] and order[at + 1] < g)
    ):
        order[at] = order[at + 1]
        at += 1
    while at > 0 and (load[order[at - 1]] > load[g] or (load[order[at - 1]] == load[g] and order[at - 1] > g)):
        order[at] = order[at - 1]
        at -= 1
    order[at] = g
    ranks.changed[g] = ranks.changes[0]


@native
def exchange(ranks, g, i, h, j):  # type: ignore[no-untyped-def]
    """Swap replica ``i`` of rank ``g`` with replica ``j`` of rank ``h``."""
    value, expert = ranks.value, ranks.expert
    u, eu = value[g, i], expert[g, i]
    v, ev = value[h, j], expert[h, j]
    replace(value[g], expert[g], i, v, ev)
    replace(value[h], expert[h], j, u, eu)
    ranks.changes[0] += 1
    add_load(ranks, g, v - u)
    add_load(ranks, h, u - v)


@native
def forget_changes(ranks):  # type: ignore[no-untyped-def]
    """Take all ranks as new: none is known to be stuck."""
    ranks.changes[0] = 0
    ranks.changed[:] = 0
    ranks.stuck[:] = -1


@native
def set_ranks(ranks, weight, keys, spare):  # type: ignore[no-untyped-def]
    """Recompute everything from ``expert`` and ``replicas``."""
    value, expert, load, order, replicas = ranks.value, ranks.expert, ranks.load, ranks.order, ranks.replicas
    num_ranks, slots = expert.shape
    bits = 0
    while (1 << bits) < num_ranks:
        bits += 1
    for g in range(num_ranks):
        total = np.int64(0)
        for s in range(slots):
            value[g, s] = weight[expert[g, s]] // replicas[expert[g, s]]
            total += value[g, s]
        load[g] = total
        sort_rank(value[g], expert[g])
        keys[g] = (total << bits) | g
    sort_ascending(keys[:num_ranks], spare)
    for g in range(num_ranks):
        order[g] = keys[g] & ((1 << bits) - 1)
    forget_changes(ranks)


@native
def unpack(by_load, bits, weight, names):  # type: ignore[no-untyped-def]
    """Set the loads of one row, descending, and the expert behind each; ``by_load`` holds ~load and expert, sorted."""
    for i in range(len(by_load)):
        weight[i], names[i] = ~(by_load[i] >> bits), by_load[i] & ((1 << bits) - 1)
