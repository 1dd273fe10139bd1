"""Steps: what one costs, how it is made, and how the last one is taken back."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import inlined, internal
from equipoise.robust.steps.layer import note_rank, weigh
from equipoise.robust.steps.rules import EMPTY

__all__ = ["is_new", "make", "note_step", "unmake"]


@inlined
def note_step(layer, chain, step, a, g, i, h, j):
    """Note that a takes slot i of g, or, where h is a rank, that slots i and j swap; return the transfers it costs."""
    b = np.int64(layer.held[g, i])
    noted = layer.chain[chain, step]
    noted[0], noted[1], noted[2], noted[3], noted[4], noted[5] = a, b, g, i, h, j
    return is_new(layer, g, a) - is_new(layer, g, b) if h < 0 else _cost_of_swap(layer, g, i, h, j)


@inlined
def is_new(layer, g, e):
    return np.int64(e >= 0 and not layer.was[g, e])


@inlined
def _cost_of_swap(layer, g, i, h, j):
    a, b = np.int64(layer.held[g, i]), np.int64(layer.held[h, j])
    return is_new(layer, h, a) - is_new(layer, g, a) + is_new(layer, g, b) - is_new(layer, h, b)


@inlined
def _note_changed(layer, a, b, g, h):
    """Note which ranks' load a step changes."""
    for r in range(len(layer.changed)):
        has = h < 0 and (layer.times[r, a] > 0 or (b >= 0 and layer.times[r, b] > 0))
        layer.changed[r] = has or r in (g, h)


@internal
def make(layer, chain, step):
    """Make a noted step: ``a`` takes slot i of g from ``b``, either maybe nobody; or slot i of g and j of h swap."""
    a, b = layer.chain[chain, step, 0], layer.chain[chain, step, 1]
    g, i, h, j = (layer.chain[chain, step, 2], layer.chain[chain, step, 3],
                  layer.chain[chain, step, 4], layer.chain[chain, step, 5])  # fmt: skip
    _note_changed(layer, a, b, g, h)
    if h >= 0:
        other = np.int64(layer.held[h, j])
        _put(layer, g, i, other)
        _put(layer, h, j, a)
    else:
        _put(layer, g, i, a)
        if a >= 0:
            layer.replicas[a] += 1
            weigh(layer, a)
        if b >= 0:
            layer.replicas[b] -= 1
            weigh(layer, b)
    for r in range(len(layer.changed)):
        if layer.changed[r]:
            note_rank(layer, r)


@inlined
def unmake(layer, chain, step):
    """Take a noted step back, the last that was made."""
    noted = layer.chain[chain, step]
    if noted[4] < 0:
        noted[0], noted[1] = noted[1], noted[0]
    else:
        noted[0] = layer.held[noted[2], noted[3]]
    make(layer, chain, step)


@inlined
def _put(layer, g, i, e):
    if layer.held[g, i] >= 0:
        layer.times[g, layer.held[g, i]] -= 1
    if e >= 0:
        layer.times[g, e] += 1
    layer.held[g, i] = e if e >= 0 else EMPTY
