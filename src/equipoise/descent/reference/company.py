"""Replica counts under which large replicas find light company enough; see ``equipoise.descent.company`` for why.

Floats are added in the order of the compiled version: expert by expert, then kind by kind along the grid.
"""

from __future__ import annotations

import math

from equipoise.descent.reference.layer import Layer
from equipoise.descent.tuning import MOVES

__all__ = ["find_company"]

GRID, KINDS = 48, 3
PHI = 0.65  # of theta
STEP = 0.88  # each theta is so much of the one before it
Table = list[list[float]]  # [KINDS][GRID]


def find_company(layer: Layer, replicas: list[int], target: int) -> list[int]:
    """Return ``replicas`` after moves of slots, each the one of all that leaves the least sum of squared failures."""
    weight, slots, experts, counts = layer.weight, layer.slots, len(layer.weight), list(replicas)
    thetas = [0.5 * target]
    while len(thetas) < GRID:
        thetas.append(thetas[-1] * STEP)
    failure = [
        [-float(layer.num_ranks) * target for _ in thetas],
        [0.0 for _ in thetas],
        [-float(layer.num_ranks) * slots * (PHI * theta) for theta in thetas],
    ]
    nothing = _empty()
    for e in range(experts):
        _add(weight[e], counts[e], target, slots, 1.0, thetas, failure)
    more = [_change(weight[e], counts[e], counts[e] + 1, target, slots, thetas) for e in range(experts)]
    fewer = [_change(weight[e], counts[e], counts[e] - 1, target, slots, thetas) for e in range(experts)]
    left = _squared(failure, nothing, nothing, math.inf)
    for _ in range(MOVES):
        best, move = left, None
        for a in range(experts):
            if left == 0.0 or not layer.goes_on(KINDS * GRID):
                return counts
            if counts[a] >= layer.num_ranks or _squared(failure, more[a], nothing, left) >= left:
                continue
            for b in range(experts):
                if counts[b] > 1 and a != b and weight[b] <= target * (counts[b] - 1):
                    layer.spend(GRID)
                    after = _squared(failure, more[a], fewer[b], best)
                    if after < best:
                        best, move = after, (a, b)
        if move is None:
            return counts
        a, b = move
        left = best
        kinds = zip(failure, more[a], fewer[b], strict=True)
        failure = [[f + (m + n) for f, m, n in zip(*rows, strict=True)] for rows in kinds]
        counts[a] += 1
        counts[b] -= 1
        for e in move:
            more[e] = _change(weight[e], counts[e], counts[e] + 1, target, slots, thetas)
            fewer[e] = _change(weight[e], counts[e], counts[e] - 1, target, slots, thetas)
    return counts


def _empty() -> Table:
    return [[0.0] * GRID for _ in range(KINDS)]


def _change(weight: int, count: int, then: int, target: int, slots: int, thetas: list[float]) -> Table:
    """Return what ``then`` replicas instead of ``count`` would change; with none, only what is lost."""
    change = _empty()
    _add(weight, count, target, slots, -1.0, thetas, change)
    if then:
        _add(weight, then, target, slots, 1.0, thetas, change)
    return change


def _add(weight: int, count: int, target: int, slots: int, sign: float, thetas: list[float], failure: Table) -> None:
    """Add what ``count`` replicas contribute at each theta. A small replica that lacks counts as theta."""
    each = weight / count
    for t, theta in enumerate(thetas):
        phi = PHI * theta
        if each > target - theta:  # large
            failure[0][t] += sign * count * target
            failure[1][t] += sign * count * (slots - 1) * theta
            failure[2][t] += sign * (weight - count * (target - slots * phi))
        else:
            failure[0][t] += sign * weight if each > theta else 0.0
            failure[1][t] -= sign * count * theta if each <= theta else 0.0
            failure[2][t] += sign * min(weight, count * phi)


def _squared(failure: Table, first: Table, second: Table, limit: float) -> float:
    """Return the sum of squared failures after two changes, or something above ``limit`` once it exceeds that."""
    total = 0.0
    for rows in zip(failure, first, second, strict=True):
        for f, m, n in zip(*rows, strict=True):
            over = max(f + m + n, 0.0)
            total += over * over
        if total > limit:
            break
    return total
