"""Re-planning, native: one layer after the other, each by steps until none helps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import allocating, inlined, native
from equipoise.replan.levelling.layer import change_replicas, new_layer, note_changed, put
from equipoise.replan.levelling.steps import best_exchange, best_lend, best_shed, look_from, new_view
from equipoise.threads import blocks, for_each

__all__ = ["MAX", "descend"]

Int64s = NDArray[np.int64]

NOTHING, TAKING, EXCHANGE = 0, 1, 2
MAX = np.int64(2**63 - 1)


class Layers(NamedTuple):
    """Some layers, as the contract has them, one row each."""

    held: Any
    was: Any
    weight: Any
    home: Any
    level: Any
    limit: Any


def descend(
    held: NDArray[np.int32],
    was: NDArray[np.bool_],
    weight: Int64s,
    node: NDArray[np.int32],
    home: NDArray[np.int32],
    level: Int64s,
    limit: Int64s,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], Int64s, Int64s]:
    """Level the ranks of each layer; see the folder's contract."""
    held = held.copy()
    curve = np.full((len(held), int(limit.max()) + 1), MAX)
    spent = np.empty(len(held), dtype=np.int64)

    def work(rows: slice) -> None:
        """Level some layers."""
        layers = Layers(held[rows], was[rows], weight[rows], home[rows], level[rows], limit[rows])
        _descend_layers(layers, node, curve[rows], spent[rows])

    for_each(work, blocks(len(held), threads), threads)
    return held, curve, spent


@native
def _descend_layers(layers, node, curve, spent):
    for row in range(len(curve)):
        layer = new_layer(
            layers.held[row], layers.was[row], layers.weight[row], node, layers.home[row], layers.level[row],
            layers.limit[row]
        )  # fmt: skip
        spent[row] = _descend(layer, layers.limit[row], curve[row])


@allocating
def _descend(layer, limit, curve):
    """Level the ranks of one layer in place, fill ``curve``, and return the transfers."""
    held, level, view = layer.held, layer.level, new_view(*layer.held.shape)
    spent = most = layer.fresh.sum()
    while True:
        h = int(np.argmax(layer.load))
        curve[most] = layer.load[h]
        if layer.load[h] <= level:
            break
        kind, i, g, j = _best_step(h, layer, view)
        if kind == NOTHING or spent + _cost(kind, i, g, j, h, layer) > limit:
            break
        if kind == EXCHANGE:
            u, v = np.int64(held[h, i]), np.int64(held[g, j])
            spent += put(layer, h, i, v) + put(layer, g, j, u)
        else:
            a, b = i, np.int64(held[g, j])
            change_replicas(layer, a, np.int64(1))
            if b >= 0:
                change_replicas(layer, b, np.int64(-1))
            spent += put(layer, g, j, a)
        most = max(most, spent)
        note_changed(layer)
    for k in range(1, len(curve)):
        curve[k] = min(curve[k], curve[k - 1])
    return spent


@inlined
def _best_step(h, layer, view):
    """Return the kind of the best step, and i, g and j.

    TAKING lets expert i take slot j of rank g; EXCHANGE is of slot i of ``h`` with slot j of rank g.
    """
    look_from(h, layer, view)
    kind, expert, rank, slot = NOTHING, np.int64(-1), -1, -1
    score, i, g, j = best_lend(h, layer, view)
    if i >= 0:
        kind, expert, rank, slot = TAKING, np.int64(layer.held[h, i]), g, j
    score, i, a = best_shed(h, score, layer, view)
    if i >= 0:
        kind, expert, rank, slot = TAKING, np.int64(a), h, i
    i, g, j = best_exchange(h, score, layer, view)
    if i >= 0:
        kind, expert, rank, slot = EXCHANGE, np.int64(i), g, j
    return kind, expert, rank, slot


@inlined
def _cost(kind, i, g, j, h, layer):
    """Return the transfers that a step adds."""
    there = layer.held[g, j]
    comes = layer.held[h, i] if kind == EXCHANGE else np.int32(i)
    cost = np.int64(not layer.was[g, comes]) - np.int64(there >= 0 and not layer.was[g, there])
    if kind == EXCHANGE:
        cost += np.int64(there >= 0 and not layer.was[h, there]) - np.int64(not layer.was[h, comes])
    return cost
