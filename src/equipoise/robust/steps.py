"""From a placement in force: the steps that lower the expected square of rank loads most for what they move, native.

    descend(rows, held, was, node, home, level, limit) -> held, curve, spent, ended

``rows``, ``held`` and ``node`` are as in the folder's contract, but that a slot of ``held`` may be ``EMPTY`` or
``GONE``; ``was``, ``home`` and ``limit`` as in ``equipoise.replan.levelling``. ``level`` int64 [layers] is the
objective of level ranks without errors; what the objective has more is the excess.

Each step is one of two kinds. *Take*: expert a takes a slot of b, or an empty one, on a rank that does not hold a; b
has another replica. *Swap*: replicas on two ranks of a node change places, or one moves to an empty slot. A step
costs the transfers that it adds, and half of one at least. The step with the largest gain for its cost is made; ties
go to takes, by rank, slot and a, then to swaps, by the two ranks and their slots. The way ends where that is less than
.3 % of the excess for a transfer, where the step would exceed the limit, and where rounding leaves it no gain. So a
larger limit goes on where a smaller one ends, and the objective falls with every step.

Gains are worked out in float64 from exact inner products, of the rows of experts with each other and with the loads of
ranks, as if replicas weighed exactly the row over the replicas; the objective itself has them rounded down.

Returned are the slots; ``curve`` int64 [layers, max(limit) + 1], the objective within each limit, 2**63 - 1 where
``held`` took more from the start, the last one beyond the layer's own limit; ``spent`` int64 [layers], the transfers of
the slots; and ``ended`` bool [layers], whether no larger limit would lead further.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import frozen, native
from equipoise.robust.numba import inner_products
from equipoise.threads import blocks, for_each

__all__ = ["EMPTY", "LEAST_GAIN", "MAX", "descend"]

EMPTY = -1
MAX = np.int64(2**63 - 1)
LEAST_GAIN = 0.003  # of the excess, for a transfer
HALF = 0.5  # of a transfer, that what costs none counts as

Int64s = NDArray[np.int64]


class Layer(NamedTuple):
    """The arguments for one layer, and what follows from them, kept up to date rank by rank.

    times int16 [ranks, experts], replicas of each expert on each rank; replicas int64 [experts]; load int64 [ranks,
    rows] and square int64 [ranks], its sum of squares; along float64 [ranks, experts], inner products of the experts'
    rows and the rank's load; product float64 [experts, experts], those of the experts' rows. ease float64 [experts],
    what one replica more would gain on the ranks that hold the expert. pair float64 [ranks, ranks, 3], gain for its
    cost and slots of the best swap of two ranks; stale bool [ranks], ranks whose swaps are not noted. gain
    float64 [experts] is scratch.
    """

    rows: Any
    held: Any
    was: Any
    node: Any
    home: Any
    times: Any
    replicas: Any
    load: Any
    square: Any
    along: Any
    product: Any
    ease: Any
    pair: Any
    stale: Any
    gain: Any


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
    curve = np.full((len(held), int(limit.max()) + 1), MAX)
    spent, ended = np.empty(len(held), dtype=np.int64), np.empty(len(held), dtype=np.bool_)

    def work(part: slice) -> None:
        experts = rows.shape[2]
        product = np.empty((experts, experts), dtype=np.int64)
        for at in range(part.start, part.stop):
            layer = _new_layer(rows[at], held[at], was[at], node, home[at], product)
            spent[at], ended[at] = _descend(layer, level[at], limit[at], curve[at])

    for_each(work, blocks(len(held), threads), threads)
    return held, curve, spent, ended


@native
def _new_layer(rows, held, was, node, home, product):
    ranks, experts = was.shape
    inner_products(rows, product)
    layer = Layer(
        rows, held, was, node, home,
        np.zeros((ranks, experts), dtype=np.int16), np.zeros(experts, dtype=np.int64),
        np.zeros((ranks, len(rows)), dtype=np.int64), np.zeros(ranks, dtype=np.int64), np.zeros((ranks, experts)),
        product.astype(np.float64), np.zeros(experts), np.zeros((ranks, ranks, 3)), np.ones(ranks, dtype=np.bool_),
        np.zeros(experts),
    )  # fmt: skip
    for g in range(ranks):
        for s in range(held.shape[1]):
            if held[g, s] >= 0:
                layer.times[g, held[g, s]] += 1
                layer.replicas[held[g, s]] += 1
    for g in range(ranks):
        _note_rank(layer, g)
    return layer


@native
def _note_rank(layer, g):
    """Add up the load of a rank anew, and its inner products."""
    scenarios, experts = layer.rows.shape
    layer.load[g] = 0
    for s in range(layer.held.shape[1]):
        e = layer.held[g, s]
        if e < 0:
            continue
        replicas = np.int32(layer.replicas[e])
        for row in range(scenarios):
            layer.load[g, row] += layer.rows[row, e] if replicas == 1 else layer.rows[row, e] // replicas
    total, along = np.int64(0), np.zeros(experts, dtype=np.int64)
    for row in range(scenarios):
        each = layer.load[g, row]
        total += each * each
        for e in range(experts):
            along[e] += each * np.int64(layer.rows[row, e])
    for e in range(experts):
        layer.along[g, e] = along[e]
    layer.square[g] = total
    layer.stale[g] = True


@native
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
        worth, a, g, i, h, j = _best_step(layer)
        if not worth > LEAST_GAIN * np.float64(max(objective - level, 1)):
            break
        b = layer.held[g, i]
        cost = _is_new(layer, g, a) - _is_new(layer, g, b) if h < 0 else _cost_of_swap(layer, g, i, h, j)
        if spent + cost > limit:
            ended = False
            break
        changed = _changed_by(layer, a, b, g, h)
        _make(layer, a, b, g, i, h, j, changed)
        after = layer.square.sum()
        if after >= objective:  # but for rounding it would have gained
            if h < 0:
                _make(layer, b, a, g, i, h, j, changed)
            else:
                _make(layer, a, layer.held[g, i], g, i, h, j, changed)
            break
        objective = after
        spent += cost
        most = max(most, spent)
        curve[most] = objective
    for k in range(1, len(curve)):
        curve[k] = min(curve[k], curve[k - 1])
    return spent, ended


@native
def _is_new(layer, g, e):
    return np.int64(e >= 0 and not layer.was[g, e])


@native
def _cost_of_swap(layer, g, i, h, j):
    a, b = layer.held[g, i], layer.held[h, j]
    return _is_new(layer, h, a) - _is_new(layer, g, a) + _is_new(layer, g, b) - _is_new(layer, h, b)


@native
def _changed_by(layer, a, b, g, h):
    """Return the ranks whose load a step changes, bool [ranks]."""
    changed = np.zeros(len(layer.held), dtype=np.bool_)
    changed[g] = True
    if h >= 0:
        changed[h] = True
        return changed
    for r in range(len(changed)):
        changed[r] |= layer.times[r, a] > 0 or (b >= 0 and layer.times[r, b] > 0)
    return changed


@native
def _make(layer, a, b, g, i, h, j, changed):
    """Let ``a`` take slot i of g from ``b``, either maybe nobody; or, where h is a rank, swap with slot j of h."""
    if h >= 0:
        other = layer.held[h, j]
        _put(layer, g, i, other)
        _put(layer, h, j, b)
    else:
        _put(layer, g, i, a)
        if a >= 0:
            layer.replicas[a] += 1
        if b >= 0:
            layer.replicas[b] -= 1
    for r in range(len(changed)):
        if changed[r]:
            _note_rank(layer, r)


@native
def _put(layer, g, i, e):
    if layer.held[g, i] >= 0:
        layer.times[g, layer.held[g, i]] -= 1
    if e >= 0:
        layer.times[g, e] += 1
    layer.held[g, i] = e if e >= 0 else EMPTY


@native
def _best_step(layer):
    """Return the gain for its cost of the best step, and a, g, i, h, j; h is -1 where a takes slot i of g."""
    best, a, g, i = _best_take(layer)
    ranks, h, j = len(layer.held), -1, -1
    for r in range(ranks):
        for q in range(r + 1, ranks):
            if layer.node[r] != layer.node[q]:
                continue
            if layer.stale[r] or layer.stale[q]:
                layer.pair[r, q, 0], layer.pair[r, q, 1], layer.pair[r, q, 2] = _best_swap(layer, r, q)
            if layer.pair[r, q, 0] > best:
                best, g, h = layer.pair[r, q, 0], r, q
    layer.stale[:] = False
    if h >= 0:
        i, j = int(layer.pair[g, h, 1]), int(layer.pair[g, h, 2])
        a = np.int64(layer.held[g, i])
    return best, a, g, i, h, j


@native
def _best_swap(layer, g, h):
    """Return the gain for its cost of the best swap of two ranks, and the slots of each."""
    best, best_i, best_j = 0.0, 0, 0
    for i in range(layer.held.shape[1]):
        a = layer.held[g, i]
        if a < EMPTY or (a >= 0 and layer.times[h, a] > 0):
            continue
        from_g, own = 0.0, 0.0
        if a >= 0:
            from_g = (layer.along[g, a] - layer.along[h, a]) / layer.replicas[a]
            own = layer.product[a, a] / (layer.replicas[a] * layer.replicas[a])
        for j in range(layer.held.shape[1]):
            b = layer.held[h, j]
            if b < EMPTY or (b >= 0 and layer.times[g, b] > 0):
                continue
            half = from_g - own
            if b >= 0:
                half -= (layer.along[g, b] - layer.along[h, b]) / layer.replicas[b]
                half -= layer.product[b, b] / (layer.replicas[b] * layer.replicas[b])
            if a >= 0 and b >= 0:
                half += 2.0 * layer.product[a, b] / (layer.replicas[a] * layer.replicas[b])
            if 4.0 * half > best:
                worth = 2.0 * half / max(np.float64(_cost_of_swap(layer, g, i, h, j)), HALF)
                if worth > best:
                    best, best_i, best_j = worth, i, j
    return best, np.float64(best_i), np.float64(best_j)


@native
def _best_take(layer):
    """Return the gain for its cost of the best take, and the expert, rank and slot."""
    ranks, slots = layer.held.shape
    best, best_a, best_g, best_i = 0.0, np.int64(-1), -1, -1
    _note_ease(layer)
    for g in range(ranks):
        for i in range(slots):
            b = layer.held[g, i]
            if b < EMPTY or (b >= 0 and layer.replicas[b] < 2):
                continue
            _gain_by_taking(layer, g, b)
            for a in range(len(layer.gain)):
                if 2.0 * layer.gain[a] <= best or layer.times[g, a] > 0 or layer.home[a] != layer.node[g]:
                    continue
                cost = _is_new(layer, g, a) - _is_new(layer, g, b)
                worth = layer.gain[a] / max(np.float64(cost), HALF)
                if worth > best:
                    best, best_a, best_g, best_i = worth, np.int64(a), g, i
    return best, best_a, best_g, best_i


@native
def _note_ease(layer):
    """Note what one replica more of each expert gains on the ranks that hold it."""
    layer.ease[:] = 0.0
    for g in range(len(layer.held)):
        for s in range(layer.held.shape[1]):
            e = layer.held[g, s]
            if e >= 0:
                less = 1.0 / layer.replicas[e] - 1.0 / (layer.replicas[e] + 1)
                layer.ease[e] += 2.0 * layer.along[g, e] * less - layer.product[e, e] * less * less


@native
def _gain_by_taking(layer, g, b):
    """Fill ``gain`` with what each expert gains if it takes a slot of ``b``, or an empty one, on rank g."""
    freed, each, rise = 0.0, 0.0, 0.0
    if b >= 0:
        each = 1.0 / layer.replicas[b]
        rise = 1.0 / (layer.replicas[b] - 1) - each
        freed = 2.0 * layer.along[g, b] * each - layer.product[b, b] * each * each
        for r in range(len(layer.held)):
            if r != g and layer.times[r, b] > 0:
                freed -= 2.0 * layer.along[r, b] * rise + layer.product[b, b] * rise * rise
    for a in range(len(layer.gain)):
        more = 1.0 / (layer.replicas[a] + 1)
        layer.gain[a] = layer.ease[a] + freed - (2.0 * layer.along[g, a] + layer.product[a, a] * more) * more
    if b < 0:
        return
    for a in range(len(layer.gain)):
        layer.gain[a] += 2.0 * layer.product[b, a] * each / (layer.replicas[a] + 1)
    for r in range(len(layer.held)):  # where both are, one falls as the other rises
        if r != g and layer.times[r, b] > 0:
            for s in range(layer.held.shape[1]):
                a = layer.held[r, s]
                if a >= 0:
                    less = 1.0 / layer.replicas[a] - 1.0 / (layer.replicas[a] + 1)
                    layer.gain[a] += 2.0 * less * rise * layer.product[a, b]
