"""The contract, native: steps are made, one by one or as a chain, until none pays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import frozen, internal, native
from equipoise.robust.numba import inner_products
from equipoise.robust.steps.chains import best_chain
from equipoise.robust.steps.finding import best_step
from equipoise.robust.steps.layer import BEST, new_layer
from equipoise.robust.steps.making import make, note_step, unmake
from equipoise.robust.steps.rules import LEAST_GAIN, LEFT, MAX
from equipoise.threads import blocks, for_each

__all__ = ["descend"]

Int64s = NDArray[np.int64]
FIRST = np.int64(0)


def descend(
    rows: NDArray[np.int32],
    held: NDArray[np.int32],
    was: NDArray[np.bool_],
    node: NDArray[np.int32],
    home: NDArray[np.int32],
    level: Int64s,
    limit: Int64s,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], Int64s, Int64s, NDArray[np.bool_]]:
    """Make steps in each layer until none pays; see above."""
    held, node = held.copy(), frozen(node, np.int32)
    rows, was, home = frozen(rows, np.int32), frozen(was, np.bool_), frozen(home, np.int32)
    curve, asked = np.full((len(held), int(limit.max()) + 1), MAX), frozen(np.stack([level, limit], axis=1), np.int64)
    told = np.empty((len(held), 2), dtype=np.int64)

    def work(part: slice) -> None:
        """Make the steps of some layers."""
        _descend_layers(rows[part], held[part], was[part], node, home[part], asked[part], curve[part], told[part])

    for_each(work, blocks(len(held), threads), threads)
    return held, curve, told[:, 0].copy(), told[:, 1] > 0


@native
def _descend_layers(rows, held, was, node, home, asked, curve, told):
    """Make steps in each layer; ``asked`` are level and limit, ``told`` are the transfers, and whether it ended."""
    experts = rows.shape[2]
    exact, product = np.empty((experts, experts), dtype=np.int64), np.empty((experts, experts))
    for at in range(len(held)):
        inner_products(rows[at], exact)
        for a in range(experts):
            for b in range(experts):
                product[a, b] = exact[a, b]
        layer = new_layer(rows[at], held[at], was[at], node, home[at], product)
        told[at, 0], told[at, 1] = _descend(layer, asked[at, 0], asked[at, 1], curve[at])


@internal
def _descend(layer, level, limit, curve):
    """Make steps until none pays, fill ``curve``; return the transfers, and whether no larger limit leads further."""
    spent = np.int64(0)
    for g in range(len(layer.held)):
        for s in range(layer.held.shape[1]):
            e = layer.held[g, s]
            spent += np.int64(e >= 0 and not layer.was[g, e])
    objective, most, ended = layer.square.sum(), spent, True
    curve[most] = objective
    while True:
        least = LEAST_GAIN * np.float64(max(objective - level, 1))
        worth, a, g, i, h, j = best_step(layer)
        number, cost = 1, np.int64(0)
        if worth > least:
            cost = note_step(layer, BEST, FIRST, a, g, i, h, j)
        elif limit - spent < LEFT:
            ended = False
            break
        else:
            number, cost = best_chain(layer, objective, level)
        if number == 0:
            break
        if spent + cost > limit:
            ended = False
            break
        for step in range(number):
            make(layer, BEST, step)
        after = layer.square.sum()
        if after >= objective:  # but for rounding it would have gained
            unmake(layer, BEST, FIRST)
            break
        objective = after
        spent += cost
        most = max(most, spent)
        curve[most] = objective
    for k in range(1, len(curve)):
        curve[k] = min(curve[k], curve[k - 1])
    return spent, ended
