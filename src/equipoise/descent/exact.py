"""Few slots: try all replica counts and all ways to place them, as far as a limit on the steps allows.

Experts take their counts in turn, by descending load. Complete counts are placed expert by expert, the largest replicas
first, each expert on as many ranks; a branch ends where a rank would carry no less than the best placement. Ranks with
equal loads and equally many replicas are interchangeable, so of such only the first few are tried. Unless the limit
strikes, what comes out is optimal among placements without two replicas of an expert on a rank.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.descent.facts import EXACT, MOST, REACHED, STEPS, TARGET
from equipoise.descent.layer import replica_cost
from equipoise.kernels.native import allocating, internal

__all__ = ["search_all"]

LIMIT, LEFT = 0, 1  # of limits
STEP = 75  # what one step counts in the steps of the whole search


class Tree(NamedTuple):
    """Where the search stands; what a recursion would keep lies in arrays, as compiled recursion cannot be cached.

    weight, replicas, left, each int64 [experts]: the loads, the counts, the slots left for an expert and those after
    it, the loads of replicas. items int64 [slots in all], the expert of each replica, the largest first. chosen int64
    [slots in all], the rank of each, or -1. load, used int64 [ranks]. best int64 [ranks, slots]. limits int64 [2], what
    the busiest rank must stay below, and the steps that are left.
    """

    weight: Any
    replicas: Any
    left: Any
    each: Any
    items: Any
    chosen: Any
    load: Any
    used: Any
    best: Any
    limits: Any


@allocating
def search_all(layer, steps):
    """Improve the best placement until it meets the target, all was tried, or ``steps`` were made.

    A rank has no more slots than there are experts.
    """
    weight, best, facts = layer.weight, layer.best, layer.facts
    experts, num_ranks, num_slots = len(weight), len(best), best.size
    number, left, each = np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(experts, np.int64)
    items, chosen = np.empty(num_slots, np.int64), np.empty(num_slots, np.int64)
    load, used, limits = np.empty(num_ranks, np.int64), np.empty(num_ranks, np.int64), np.empty(2, np.int64)
    steps = max(min(steps, (facts[MOST] - facts[STEPS]) // STEP), 0)
    limits[LIMIT], limits[LEFT] = facts[REACHED], steps
    tree = Tree(weight, number, left, each, items, chosen, load, used, best, limits)
    e = np.int64(0)
    number[0], left[0] = 0, num_slots
    while e >= 0 and limits[LEFT] > 0 and limits[LIMIT] > facts[TARGET]:
        limits[LEFT] -= 1
        number[e] += 1
        after, rest = experts - 1 - e, left[e] - number[e]
        if number[e] > num_ranks or rest < after:
            e -= 1
        elif replica_cost(weight, e, number[e]) < limits[LIMIT] and rest <= after * num_ranks:
            if after == 0:
                _place_all(tree, facts[TARGET])
            else:
                e += 1
                number[e], left[e] = 0, rest
    facts[STEPS] += STEP * (steps - limits[LEFT])
    facts[EXACT] += limits[LIMIT] < facts[REACHED]
    facts[REACHED] = limits[LIMIT]


@internal
def _place_all(tree, target):
    """Try all placements of the counts, replica by replica."""
    if not _set_items(tree):
        return
    items, chosen, load, used, limits = tree.items, tree.chosen, tree.load, tree.used, tree.limits
    load[:] = 0
    used[:] = 0
    i = np.int64(0)
    chosen[0] = -1
    while i >= 0 and limits[LEFT] > 0 and limits[LIMIT] > target:
        limits[LEFT] -= 1
        e, g = items[i], chosen[i]
        if g >= 0:
            load[g] -= tree.each[e]
            used[g] -= 1
        g = _next_rank(tree, i)
        chosen[i] = g
        if g < 0:
            i -= 1
            continue
        load[g] += tree.each[e]
        used[g] += 1
        if i + 1 < len(items):
            i += 1
            chosen[i] = -1
        else:
            limits[LIMIT] = 0
            for each in load:
                limits[LIMIT] = max(limits[LIMIT], each)
            _keep(tree)


@internal
def _set_items(tree):
    """List the replicas, the largest first; return whether the rank of the largest can stay below the limit."""
    weight, replicas, each, items = tree.weight, tree.replicas, tree.each, tree.items
    number = 0
    for e in range(len(weight)):
        each[e] = replica_cost(weight, e, replicas[e])
        place = number
        while place > 0 and each[items[place - 1]] < each[e]:
            items[place + replicas[e] - 1] = items[place - 1]
            place -= 1
        for i in range(replicas[e]):
            items[place + i] = e
        number += replicas[e]
    total, e, others = each[items[0]], items[0], tree.best.shape[1] - 1
    for i in range(number - 1, 0, -1):  # the least that can lie beside it, one replica of each expert
        if others > 0 and items[i] != e and items[i] != items[0]:
            e = items[i]
            total += each[e]
            others -= 1
    return total < tree.limits[LIMIT]


@internal
def _next_rank(tree, i):
    """Return the next rank for replica ``i`` after the one it was on, or -1. Replicas of an expert go on in order."""
    items, chosen, load, used = tree.items, tree.chosen, tree.load, tree.used
    e = items[i]
    start = i
    while start > 0 and items[start - 1] == e:
        start -= 1
    first = chosen[i - 1] + 1 if start < i else 0
    behind = tree.replicas[e] - 1 - (i - start)
    for g in range(max(first, chosen[i] + 1), len(load) - behind):
        if used[g] == tree.best.shape[1] or load[g] + tree.each[e] >= tree.limits[LIMIT]:
            continue
        alike = False  # whether a rank just like it was passed over: that one would have done as well
        for h in range(g):
            if load[h] == load[g] and used[h] == used[g]:
                taken = False
                for j in range(start, i):
                    taken |= chosen[j] == h
                alike |= not taken
        if not alike:
            return g
    return -1


@internal
def _keep(tree):
    """Copy the placement to ``best``."""
    tree.used[:] = 0
    for i in range(len(tree.items)):
        g = tree.chosen[i]
        tree.best[g, tree.used[g]] = tree.items[i]
        tree.used[g] += 1
