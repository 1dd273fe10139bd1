"""Swaps on the expected square of rank loads, native.

All that a swap changes are inner products of experts' rows: with u the row of one replica, a on rank g and b on h,

    change / 2 = -u_a . (L_g - L_h) + u_b . (L_g - L_h) + |u_a - u_b|^2,

so the products of all pairs of experts are computed once, and their sums over each rank are kept up to date.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import allocating, frozen, internal, native
from equipoise.threads import blocks, for_each

__all__ = ["inner_products", "objectives", "swap"]

MOST_SWEEPS, WORTH = 12, 5000


def swap(
    rows: NDArray[np.int32], held: NDArray[np.int32], node: NDArray[np.int32], threads: int | None = None
) -> NDArray[np.int64]:
    """Swap replicas of ``held`` in place; return the objective. See the folder's contract."""
    rows, node = frozen(rows, np.int32), frozen(node, np.int32)
    objective = np.empty(len(held), dtype=np.int64)

    def work(part: slice) -> None:
        """Swap in some layers."""
        _swap_layers(rows[part], held[part], node, objective[part])

    for_each(work, blocks(len(held), threads), threads)
    return objective


def objectives(rows: NDArray[np.int32], held: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the objective of slots [layers, ranks, slots], int64 [layers]; a slot below 0 is empty."""
    objective = np.empty(len(held), dtype=np.int64)
    _sum_up(frozen(rows, np.int32), frozen(held, np.int32), objective)
    return objective


@native
def _sum_up(rows, held, objective):
    for layer in range(len(held)):
        each, total = replica_rows(rows[layer], held[layer]), np.int64(0)
        for g in range(held.shape[1]):
            for row in range(len(each)):
                load = np.int64(0)
                for s in range(held.shape[2]):
                    if held[layer, g, s] >= 0:
                        load += each[row, held[layer, g, s]]
                total += load * load
        objective[layer] = total


@native
def _swap_layers(rows, held, node, objective):
    experts = rows.shape[2]
    product = np.empty((experts, experts), dtype=np.int64)
    for layer in range(len(held)):
        inner_products(replica_rows(rows[layer], held[layer]), product)
        objective[layer] = _swap(held[layer], node, product)


@allocating
def replica_rows(rows, held):
    """Return the rows of one replica of each expert, int32 [rows, experts]."""
    scenarios, experts = rows.shape
    replicas = np.zeros(experts, dtype=np.int32)
    for g in range(len(held)):
        for s in range(held.shape[1]):
            if held[g, s] >= 0:
                replicas[held[g, s]] += 1
    each = np.empty((scenarios, experts), dtype=np.int32)
    for s in range(scenarios):
        for e in range(experts):
            each[s, e] = rows[s, e] // max(replicas[e], np.int32(1))
    return each


@internal
def inner_products(each, product):
    """Fill ``product`` [experts, experts] with the inner products of the columns of ``each``."""
    scenarios, experts = each.shape
    for a in range(experts):
        for b in range(a + 1):
            product[a, b] = 0
        # Four rows at a time: each product is read and written as often as that takes.
        for s in range(0, scenarios - 3, 4):
            w, x, y, z = (np.int64(each[s, a]), np.int64(each[s + 1, a]), np.int64(each[s + 2, a]),
                          np.int64(each[s + 3, a]))  # fmt: skip
            for b in range(a + 1):
                product[a, b] += (
                    w * np.int64(each[s, b])
                    + x * np.int64(each[s + 1, b])
                    + y * np.int64(each[s + 2, b])
                    + z * np.int64(each[s + 3, b])
                )
        for s in range(scenarios - scenarios % 4, scenarios):
            x = np.int64(each[s, a])
            for b in range(a + 1):
                product[a, b] += x * np.int64(each[s, b])
    for a in range(experts):
        for b in range(a):
            product[b, a] = product[a, b]


@allocating
def _swap(held, node, product):
    """Swap replicas of one layer; return the objective."""
    ranks, slots = held.shape
    experts = len(product)
    on = np.zeros((ranks, experts), dtype=np.int16)  # replicas of each expert
    along = np.zeros((ranks, experts), dtype=np.int64)  # u_e . L_g
    objective = np.int64(0)
    for g in range(ranks):
        for s in range(slots):
            a = held[g, s]
            on[g, a] += 1
            for e in range(experts):
                along[g, e] += product[a, e]
        for s in range(slots):
            objective += along[g, held[g, s]]
    # A pair in which nothing has changed since it was looked at in vain is not looked at again.
    clock, changed, seen = 1, np.ones(ranks, dtype=np.int64), np.zeros((ranks, ranks), dtype=np.int64)
    from_h = np.empty(slots, dtype=np.int64)
    for _ in range(MOST_SWEEPS):
        before = objective
        for g in range(ranks):
            for h in range(g + 1, ranks):
                if node[g] != node[h] or max(changed[g], changed[h]) <= seen[g, h]:
                    continue
                gain, i, j = _best_swap(held, on, along, product, g, h, from_h)
                if gain <= 0:
                    seen[g, h] = clock
                    continue
                a, b = held[g, i], held[h, j]
                held[g, i], held[h, j] = b, a
                on[g, a] -= 1
                on[h, b] -= 1
                on[g, b] += 1
                on[h, a] += 1
                for e in range(experts):
                    d = product[a, e] - product[b, e]
                    along[g, e] -= d
                    along[h, e] += d
                objective -= 2 * gain
                clock += 1
                changed[g] = changed[h] = clock
        if before - objective < before // WORTH + 1:
            break
    return objective


@internal
def _best_swap(held, on, along, product, g, h, from_h):
    """Return half of what the best swap of two ranks gains, and the slots of each; the lowest slots of equals."""
    slots = held.shape[1]
    best, best_i, best_j = np.int64(0), -1, -1
    least = np.int64(2**62)
    for j in range(slots):
        b = held[h, j]
        from_h[j] = along[g, b] - along[h, b]
        least = min(least, from_h[j])
    for i in range(slots):
        a = held[g, i]
        from_g = along[g, a] - along[h, a]
        if from_g - least <= best or on[h, a] > 0:
            continue
        for j in range(slots):
            gain = from_g - from_h[j]
            b = held[h, j]
            if gain <= best or on[g, b] > 0:
                continue
            gain -= product[a, a] + product[b, b] - 2 * product[a, b]
            if gain > best:
                best, best_i, best_j = gain, i, j
    return best, best_i, best_j
