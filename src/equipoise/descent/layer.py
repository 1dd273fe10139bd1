"""One layer while it is planned: its ranks, what is known of it, the work spent on it, and operations on its ranks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.descent.facts import MOST, NUM_FACTS, REACHED, SKIPPED, STEPS
from equipoise.descent.sorting import sort_ascending
from equipoise.kernels.bits import bits_for
from equipoise.kernels.native import allocating, inlined, internal

__all__ = [
    "Layer",
    "Line",
    "Ranks",
    "Scratch",
    "add_load",
    "busiest",
    "copy_table",
    "exchange",
    "goes_on",
    "holds",
    "keep",
    "may_take",
    "new_layer",
    "order_ranks",
    "read_layer",
    "replica_cost",
    "restore",
    "set_ranks",
    "skips",
    "sort_rank",
    "write_layer",
]

MOST_PAIRED = 256  # slots of a rank; so many are level without exchanging pairs, of which there is the square


class Ranks(NamedTuple):
    """The placement that is being improved. Experts are numbered by descending load here.

    value int64 [ranks, slots], the load of each replica, ascending on each rank; expert int64 [ranks, slots];
    load int64 [ranks]; order int64 [ranks], the ranks by (load, rank); replicas int64 [experts].
    """

    value: Any
    expert: Any
    load: Any
    order: Any
    replicas: Any


class Line(NamedTuple):
    """All replicas of a layer, ascending by load, those of one expert side by side: what swaps are searched in.

    value, expert, owner int64 [replicas], the load of each, its expert and its rank; first int64 [experts], where the
    replicas of each begin; each int64 [experts], the load of one of them.
    """

    value: Any
    expert: Any
    owner: Any
    first: Any
    each: Any


class Scratch(NamedTuple):
    """Work space. Nothing in it outlives the call that writes it, and no function may read what another has left.

    keys int64 [the most that is sorted at once]; spare int64 [more than twice that]; sums int64 [2, pairs of slots];
    parts int64 [ranks, slots + pairs of slots]; full bool [ranks]; pool int64 [5, ranks].
    """

    keys: Any
    spare: Any
    sums: Any
    parts: Any
    full: Any
    pool: Any


class Layer(NamedTuple):
    """All that a search carries along.

    weight int64 [experts], the loads, descending; ranks, the placement that is being improved; line, its replicas in
    line; best int64 [ranks, slots], the experts of the best placement so far; facts int64 [NUM_FACTS], see there; stop
    bool [1], set from outside when time is up; scratch.
    """

    weight: Any
    ranks: Any
    line: Any
    best: Any
    facts: Any
    stop: Any
    scratch: Any


@allocating
def new_layer(num_ranks, slots, experts, squeezed, stop):
    """Return room for layers of one shape; ``squeezed`` is how many ranks are squeezed, none or all."""
    pairs = slots * (slots - 1) // 2 if slots <= MOST_PAIRED else 0
    total = num_ranks * slots
    most = max(experts + num_ranks, total, pairs)
    return Layer(
        np.empty(experts, np.int64),
        Ranks(
            np.empty((num_ranks, slots), np.int64),
            np.empty((num_ranks, slots), np.int64),
            np.empty(num_ranks, np.int64),
            np.empty(num_ranks, np.int64),
            np.empty(experts, np.int64),
        ),
        Line(
            np.empty(total, np.int64),
            np.empty(total, np.int64),
            np.empty(total, np.int64),
            np.empty(experts, np.int64),
            np.empty(experts, np.int64),
        ),
        np.empty((num_ranks, slots), np.int64),
        np.empty(NUM_FACTS, np.int64),
        stop,
        Scratch(
            np.empty(most, np.int64),
            np.empty(2 * most + 1, np.int64),
            np.empty((2, pairs), np.int64),
            np.empty((squeezed, slots + pairs), np.int64),
            np.empty(num_ranks, np.bool_),
            np.empty((5, num_ranks), np.int64),
        ),
    )


@internal
def read_layer(layer, by_load, bits, facts):
    """Set the loads and facts of one layer; ``by_load`` holds ~load and expert, sorted."""
    for i in range(len(by_load)):
        layer.weight[i] = ~(by_load[i] >> bits)
    for i in range(NUM_FACTS):
        layer.facts[i] = facts[i]


@internal
def write_layer(layer, by_load, bits, facts, held):
    """Write the best placement to ``held``, by the experts' own names, and the facts to ``facts``."""
    for g in range(held.shape[0]):
        for s in range(held.shape[1]):
            held[g, s] = by_load[layer.best[g, s]] & ((1 << bits) - 1)
    for i in range(NUM_FACTS):
        facts[i] = layer.facts[i]


@inlined
def goes_on(layer, steps):
    """Count ``steps`` of work, and one for asking; return whether more may be spent.

    A step is about a nanosecond of one core: a turn of an inner loop, or of two. The search ends where the count says
    so, and the clock only by way of the count: where time is up, what was counted is the limit from now on, and a
    search with that limit ends at the same place.
    """
    facts = layer.facts
    facts[STEPS] += steps + 1
    if layer.stop[0] and facts[MOST] > facts[STEPS]:
        facts[MOST] = facts[STEPS]
    return facts[STEPS] < facts[MOST]


@inlined
def skips(layer, stage):
    """Whether this stage is to be left out, to see what it is worth."""
    return (layer.facts[SKIPPED] >> stage) & 1 == 1


@inlined
def replica_cost(weight, e, count):
    """Return what one of ``count`` replicas of expert ``e`` costs the rank that holds it: an even share of its load."""
    return weight[e] // count


@inlined
def busiest(layer):
    """Return the load of the busiest rank now."""
    return layer.ranks.load[layer.ranks.order[-1]]


@internal
def copy_table(source, table):
    """Copy one [rows, columns] into another: an assignment would be compiled with words for shapes that do not fit."""
    for i in range(table.shape[0]):
        for j in range(table.shape[1]):
            table[i, j] = source[i, j]


@internal
def keep(layer):
    """Keep the placement if it is better than the best so far; return whether it was."""
    if busiest(layer) >= layer.facts[REACHED]:
        return False
    layer.facts[REACHED] = busiest(layer)
    copy_table(layer.ranks.expert, layer.best)
    return True


@inlined
def holds(expert, g, e):
    """Whether rank ``g`` holds expert ``e``."""
    for s in range(expert.shape[1]):  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if expert[g, s] == e:
            return True
    return False


@inlined
def may_take(ranks, g, e):
    """Whether rank ``g`` may take a replica of expert ``e`` that lies elsewhere without holding the expert twice."""
    return ranks.replicas[e] == 1 or not holds(ranks.expert, g, e)


@internal
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
def _replace(value, expert, g, at, v, e):
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
    _replace(value, expert, g, i, v, ev)
    _replace(value, expert, h, j, u, eu)
    add_load(ranks, g, v - u)
    add_load(ranks, h, u - v)


@internal
def order_ranks(ranks, scratch):
    """Set ``order`` from the loads."""
    load, order, keys = ranks.load, ranks.order, scratch.keys
    bits = bits_for(len(load))
    for g in range(len(load)):
        keys[g] = (load[g] << bits) | g
    sort_ascending(keys[: len(load)], scratch.spare)
    for g in range(len(load)):
        order[g] = keys[g] & ((1 << bits) - 1)


@internal
def set_ranks(layer):
    """Recompute everything from ``expert`` and ``replicas``."""
    ranks = layer.ranks
    value, expert, load, replicas = ranks.value, ranks.expert, ranks.load, ranks.replicas
    num_ranks, slots = expert.shape
    for g in range(num_ranks):
        total = np.int64(0)
        for s in range(slots):
            value[g, s] = replica_cost(layer.weight, expert[g, s], replicas[expert[g, s]])
            total += value[g, s]
        load[g] = total
        sort_rank(value[g], expert[g])
    order_ranks(ranks, layer.scratch)


@internal
def restore(layer, table):
    """Go back to the placement in ``table`` [ranks, slots]."""
    expert, replicas = layer.ranks.expert, layer.ranks.replicas
    copy_table(table, expert)
    replicas[:] = 0
    for g in range(expert.shape[0]):
        for s in range(expert.shape[1]):
            replicas[expert[g, s]] += 1
    set_ranks(layer)
