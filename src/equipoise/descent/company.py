"""Replica counts under which large replicas find light company enough: what packing cannot mend later.

Let T be the target, theta at most T / 2, and call a replica large above T - theta and small up to theta. No rank has
room for two large ones, nor for one beside anything but small ones. Let there be L large ones. Then

- what is neither has the other R - L ranks to itself: its load is at most (R - L) T;
- the small ones are at least (S - 1) L;
- for phi <= theta, the other ranks carry at most phi for each of their S (R - L) slots, and what replicas that are not
  large weigh above phi. The rest is on the ranks of the large ones, which carry at most L T.

Each is a sum over experts. The search adds up by how much counts fail these over a grid of thetas, and moves slots
between experts to bring that to zero. See ``equipoise.bounds.threshold`` for a bound from the second.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.facts import STEPS
from equipoise.descent.layer import copy_table, goes_on
from equipoise.descent.tuning import MOVES
from equipoise.kernels.native import allocating, internal

__all__ = ["find_company"]

GRID = 48
PHI = 0.65  # of theta
KINDS = 3
STEP = 0.88  # each theta is so much of the one before it: the least is T / 800


@allocating
def find_company(layer, target):
    """Move slots between experts until large replicas have company on the whole grid, or no move helps.

    Each move is the one, of all pairs of experts, that leaves the least sum of squared failures.
    """
    weight, replicas = layer.weight, layer.ranks.replicas
    (num_ranks, slots), experts = layer.best.shape, len(weight)
    failure, nothing = np.zeros((KINDS, GRID)), np.zeros((KINDS, GRID))
    theta = 0.5 * target
    for t in range(GRID):
        failure[0, t] = -np.float64(num_ranks) * target
        failure[2, t] = -np.float64(num_ranks) * slots * (PHI * theta)
        theta *= STEP
    more, fewer = np.zeros((experts, KINDS, GRID)), np.zeros((experts, KINDS, GRID))
    for e in range(experts):
        _add(weight[e], replicas[e], target, slots, 1.0, failure)
        _set_changes(weight[e], replicas[e], target, slots, more[e], fewer[e])
    left = _squared(failure, nothing, nothing, np.inf)
    for _ in range(MOVES):
        best, best_a, best_b = left, -1, -1
        for a in range(experts):
            if left == 0.0 or not goes_on(layer, KINDS * GRID):
                return
            if replicas[a] >= num_ranks or _squared(failure, more[a], nothing, left) >= left:
                continue
            for b in range(experts):
                if replicas[b] < 2 or a == b or weight[b] > target * (replicas[b] - 1):
                    continue
                layer.facts[STEPS] += GRID
                after = _squared(failure, more[a], fewer[b], best)
                if after < best:
                    best, best_a, best_b = after, a, b
        if best_a < 0:
            return
        left = best
        for kind in range(KINDS):
            for t in range(GRID):
                failure[kind, t] += more[best_a, kind, t] + fewer[best_b, kind, t]
        replicas[best_a] += 1
        replicas[best_b] -= 1
        for e in (best_a, best_b):
            _set_changes(weight[e], replicas[e], target, slots, more[e], fewer[e])


@internal
def _add(weight, count, target, slots, sign, failure):
    """Add what ``count`` replicas contribute at each theta. A small replica that lacks counts as theta."""
    each, theta = weight / count, 0.5 * target
    for t in range(GRID):
        phi = PHI * theta
        if each > target - theta:
            failure[0, t] += sign * count * target
            failure[1, t] += sign * count * (slots - 1) * theta
            failure[2, t] += sign * (weight - count * (target - slots * phi))
        else:
            failure[0, t] += sign * weight if each > theta else 0.0
            failure[1, t] -= sign * count * theta if each <= theta else 0.0
            failure[2, t] += sign * min(weight, count * phi)
        theta *= STEP


@internal
def _set_changes(weight, count, target, slots, more, fewer):
    """Set what one replica more, and one fewer, would change."""
    more[:] = 0.0
    _add(weight, count, target, slots, -1.0, more)
    copy_table(more, fewer)
    _add(weight, count + 1, target, slots, 1.0, more)
    if count > 1:
        _add(weight, count - 1, target, slots, 1.0, fewer)


@internal
def _squared(failure, first, second, limit):
    """Return the sum of squared failures after two changes, or something above ``limit`` once it exceeds that."""
    total = 0.0
    for kind in range(KINDS):
        for t in range(GRID):
            over = max(failure[kind, t] + first[kind, t] + second[kind, t], 0.0)
            total += over * over
        if total > limit:
            break
    return total
