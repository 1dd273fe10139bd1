"""The ranks of one row while they are improved, and the few operations that keep them in order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.descent import STAGES
from equipoise.kernels.native import inlined, native

__all__ = [
    "Line",
    "Ranks",
    "Space",
    "add_load",
    "bits_for",
    "copy_table",
    "exchange",
    "holds",
    "new_ranks",
    "new_space",
    "order_ranks",
    "replace",
    "set_ranks",
    "sort_ascending",
    "sort_rank",
    "unpack",
]


SWAPS, PAIRS, CHAINS, RELAXED, SQUEEZED, FITTING, CONVERTED, PAIRED = range(len(STAGES))
NEVER = np.int64(2**62)
RUN = 64  # keys that are sorted by counting
CROWD = 16  # keys in one bucket
FEW = 24  # slots; with so few all counts and placements are tried
MOST_PAIRED = 256  # slots of a rank; so many are level without exchanging pairs, of which there is the square


class Ranks(NamedTuple):
    """One row being planned. Experts are numbered by descending load here.

    value int64 [ranks, slots], the load of each replica, ascending on each rank; expert int64 [ranks, slots];
    load int64 [ranks]; order int64 [ranks], the ranks by (load, rank); replicas int64 [experts].
    """

    value: Any
    expert: Any
    load: Any
    order: Any
    replicas: Any


@native
def new_ranks(num_ranks, slots, experts):
    """Return room for one row."""
    return Ranks(
        np.empty((num_ranks, slots), np.int64),
        np.empty((num_ranks, slots), np.int64),
        np.empty(num_ranks, np.int64),
        np.empty(num_ranks, np.int64),
        np.empty(experts, np.int64),
    )


class Line(NamedTuple):
    """All replicas of one row, ascending by load, those of one expert side by side: what swaps are searched in.

    value, expert, owner int64 [replicas], the load of each, its expert and its rank; first int64 [experts], where the
    replicas of each begin; each int64 [experts], the load of one of them.
    """

    value: Any
    expert: Any
    owner: Any
    first: Any
    each: Any


class Space(NamedTuple):
    """Work space for one row: nothing in it outlives the call that writes it.

    keys int64 [the most that is sorted at once]; spare int64 [more than twice that]; line, see there; sums int64
    [2, pairs of slots]; parts int64 [ranks, slots + pairs of slots]; full bool [ranks]; pool int64 [4, ranks].
    """

    keys: Any
    spare: Any
    line: Any
    sums: Any
    parts: Any
    full: Any
    pool: Any


@native
def new_space(num_ranks, slots, experts, squeezed):
    """Return work space for rows of one shape; ``squeezed`` is how many ranks are squeezed, none or all."""
    pairs = slots * (slots - 1) // 2 if slots <= MOST_PAIRED else 0
    most = max(experts + num_ranks, num_ranks * slots, pairs)
    return Space(
        np.empty(most, np.int64),
        np.empty(2 * most + 1, np.int64),
        Line(
            np.empty(num_ranks * slots, np.int64),
            np.empty(num_ranks * slots, np.int64),
            np.empty(num_ranks * slots, np.int64),
            np.empty(experts, np.int64),
            np.empty(experts, np.int64),
        ),
        np.empty((2, pairs), np.int64),
        np.empty((squeezed, slots + pairs), np.int64),
        np.empty(num_ranks, np.bool_),
        np.empty((4, num_ranks), np.int64),
    )


@native
def copy_table(source, table):
    """Copy one [rows, columns] into another: an assignment would be compiled with words for shapes that do not fit."""
    for i in range(table.shape[0]):
        for j in range(table.shape[1]):
            table[i, j] = source[i, j]


@native
def bits_for(numbers):
    """Return the bits that tell so many numbers apart."""
    bits = 0
    while (1 << bits) < numbers:
        bits += 1
    return bits


@native
def sort_ascending(keys, spare):
    """Sort ``keys``, which all differ, in place; ``spare`` is more than twice as long.

    Keys that are spread evenly are thrown into as many buckets as there are keys. Where they crowd, runs of 32 are
    sorted, then merged: in a run, each key's place is how many are lower, counted against all, so that no branch
    depends on the keys and the loops become vector instructions. Runs that are in order already are left alone.
    """
    n = len(keys)
    if n > RUN and _sort_spread(keys, spare):
        return
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
def _sort_spread(keys, spare):
    """Sort by buckets of equal width, then by insertion; return False, and do nothing, where the keys crowd."""
    n = len(keys)
    least = most = keys[0]
    for i in range(n):
        least, most = min(least, keys[i]), max(most, keys[i])
    shift = 0
    while (most - least) >> shift >= n:
        shift += 1
    start = spare[n : 2 * n + 1]  # of each bucket
    start[:] = 0
    for i in range(n):
        start[((keys[i] - least) >> shift) + 1] += 1
    fullest = np.int64(0)
    for b in range(n):
        fullest = max(fullest, start[b + 1])
        start[b + 1] += start[b]
    if fullest > CROWD:
        return False
    for i in range(n):
        b = (keys[i] - least) >> shift
        spare[start[b]] = keys[i]
        start[b] += 1
    for i in range(n):
        key, j = spare[i], i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key
    return True


@native
def _sort_run(keys, spare):
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


@inlined
def holds(experts, e):
    """Whether ``e`` is among ``experts``."""
    for other in experts:  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if other == e:
            return True
    return False


@native
def sort_rank(value, expert):
    """Sort one rank's replicas by load."""
    for i in range(1, len(value)):
        v, e = value[i], expert[i]
        j = i - 1
        while j >= 0 and value[j] > v:
            value[j + 1], expert[j + 1] = value[j], expert[j]
            j -= 1
        value[j + 1], expert[j + 1] = v, e


@inlined
def replace(value, expert, g, at, v, e):
    """Put replica (v, e) on rank ``g`` in place of the one at ``at``, and keep the rank sorted."""
    slots = value.shape[1]
    while at + 1 < slots and value[g, at + 1] < v:
        value[g, at], expert[g, at] = value[g, at + 1], expert[g, at + 1]
        at += 1
    while at > 0 and value[g, at - 1] > v:
        value[g, at], expert[g, at] = value[g, at - 1], expert[g, at - 1]
        at -= 1
    value[g, at], expert[g, at] = v, e


@inlined
def add_load(ranks, g, more):
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


@inlined
def exchange(ranks, g, i, h, j):
    """Swap replica ``i`` of rank ``g`` with replica ``j`` of rank ``h``."""
    value, expert = ranks.value, ranks.expert
    u, eu = value[g, i], expert[g, i]
    v, ev = value[h, j], expert[h, j]
    replace(value, expert, g, i, v, ev)
    replace(value, expert, h, j, u, eu)
    add_load(ranks, g, v - u)
    add_load(ranks, h, u - v)


@native
def order_ranks(ranks, keys, spare):
    """Set ``order`` from the loads."""
    load, order = ranks.load, ranks.order
    bits = bits_for(len(load))
    for g in range(len(load)):
        keys[g] = (load[g] << bits) | g
    sort_ascending(keys[: len(load)], spare)
    for g in range(len(load)):
        order[g] = keys[g] & ((1 << bits) - 1)


@native
def set_ranks(ranks, weight, keys, spare):
    """Recompute everything from ``expert`` and ``replicas``."""
    value, expert, load, replicas = ranks.value, ranks.expert, ranks.load, ranks.replicas
    num_ranks, slots = expert.shape
    for g in range(num_ranks):
        total = np.int64(0)
        for s in range(slots):
            value[g, s] = weight[expert[g, s]] // replicas[expert[g, s]]
            total += value[g, s]
        load[g] = total
        sort_rank(value[g], expert[g])
    order_ranks(ranks, keys, spare)


@native
def unpack(by_load, bits, weight, names):
    """Set the loads of one row, descending, and the expert behind each; ``by_load`` holds ~load and expert, sorted."""
    for i in range(len(by_load)):
        weight[i], names[i] = ~(by_load[i] >> bits), by_load[i] & ((1 << bits) - 1)
