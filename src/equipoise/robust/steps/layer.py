"""The state of one layer: the objective, rank by rank, and what follows from the slots, kept up to date."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import allocating, inlined, internal
from equipoise.robust.steps.rules import DEPTH, NOBODY

__all__ = ["BEST", "PROMISE", "TRIED", "WORTH", "Layer", "begin", "new_layer", "note_rank", "weigh"]

WORTH, PROMISE = 0, 3  # of ``pair``: gain for its cost, and what that does not exceed
TRIED, BEST = np.int64(0), np.int64(1)  # of ``chain``; typed: a literal is a type of its own to numba


class Layer(NamedTuple):
    """The arguments for one layer, and what follows from them, kept up to date rank by rank.

    Of experts: ``replicas`` int64; float64 ``each`` and ``more``, what part of its expert a replica is, now and with
    one more; ``product`` [experts, experts], the inner products of their rows, and ``square_of``, its diagonal;
    ``ease``, what one more replica gains on the ranks that hold the expert, less its own square.

    Of ranks: ``times`` int16 [ranks, experts], replicas of each expert; ``load`` int64 [ranks, rows] and ``square``
    int64 [ranks], the sum of its squares; ``along`` float64 [ranks, experts], inner products of the load and the
    experts' rows; ``pair`` float64 [ranks, ranks, 4], gain for its cost and slots of the best swap, below 0 if not
    known, and what it does not exceed; ``changed`` bool [ranks], whose load a step changes.

    Of chains: ``split`` int64 [1], the expert whose slots are kept, or ``NOBODY``; ``chain`` int64 [2, steps, 6], what
    ``make`` was told for each step of the chain that is tried, and of the best.

    Scratch: ``side`` [2, slots, 3], ``both`` and ``gain`` [experts].

    As in ``equipoise.replan.levelling.layer``, arrays are named in full and functions inlined, lest references be
    counted in inner loops.
    """

    rows: Any
    held: Any
    was: Any
    node: Any
    home: Any
    times: Any
    replicas: Any
    each: Any
    more: Any
    load: Any
    square: Any
    along: Any
    product: Any
    square_of: Any
    ease: Any
    pair: Any
    changed: Any
    split: Any
    chain: Any
    side: Any
    both: Any
    gain: Any


@allocating
def new_layer(rows, held, was, node, home, product):
    """Return a layer with these arrays, and room for all that follows from them."""
    ranks, experts = was.shape
    layer = Layer(
        rows, held, was, node, home,
        np.zeros((ranks, experts), dtype=np.int16), np.zeros(experts, dtype=np.int64),
        np.empty(experts), np.empty(experts),
        np.zeros((ranks, len(rows)), dtype=np.int64), np.zeros(ranks, dtype=np.int64), np.zeros((ranks, experts)),
        product, np.empty(experts), np.zeros(experts),
        np.zeros((ranks, ranks, 4)), np.zeros(ranks, dtype=np.bool_),
        np.zeros(1, dtype=np.int64), np.zeros((2, 1 + DEPTH, 6), dtype=np.int64),
        np.zeros((2, held.shape[1], 3)), np.zeros(experts), np.zeros(experts),
    )  # fmt: skip
    begin(layer)
    return layer


@internal
def begin(layer):
    """Note of experts and ranks what follows from the slots."""
    layer.split[0] = NOBODY
    for g in range(len(layer.held)):
        for s in range(layer.held.shape[1]):
            if layer.held[g, s] >= 0:
                layer.times[g, layer.held[g, s]] += 1
                layer.replicas[layer.held[g, s]] += 1
    for e in range(len(layer.each)):
        layer.square_of[e] = layer.product[e, e]
        weigh(layer, e)
    for g in range(len(layer.held)):
        note_rank(layer, g)


@inlined
def weigh(layer, e):
    """Note what part of its expert a replica is: now, and with one more."""
    layer.each[e] = 1.0 / max(layer.replicas[e], 1)
    layer.more[e] = 1.0 / (layer.replicas[e] + 1)


@inlined
def note_rank(layer, g):
    """Add up the load of a rank anew, its square and its inner products."""
    scenarios, experts = layer.rows.shape
    layer.load[g] = 0
    layer.along[g] = 0.0
    for s in range(layer.held.shape[1]):
        e = layer.held[g, s]
        if e < 0:
            continue
        replicas = np.int32(layer.replicas[e])
        for row in range(scenarios):
            layer.load[g, row] += layer.rows[row, e] if replicas == 1 else layer.rows[row, e] // replicas
        each = layer.each[e]
        for a in range(experts):
            layer.along[g, a] += layer.product[e, a] * each
    total = np.int64(0)
    for row in range(scenarios):
        total += layer.load[g, row] * layer.load[g, row]
    layer.square[g] = total
    for r in range(len(layer.held)):
        layer.pair[g, r, WORTH] = layer.pair[r, g, WORTH] = -1.0
        layer.pair[g, r, PROMISE] = layer.pair[r, g, PROMISE] = np.inf
