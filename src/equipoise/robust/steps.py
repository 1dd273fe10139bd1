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

Gains are worked out in float64 from the exact inner products of the rows of experts, as if a replica weighed exactly
its part of the row; the objective itself has replicas rounded down.

Returned are the slots; ``curve`` int64 [layers, max(limit) + 1], the objective within each limit, 2**63 - 1 where
``held`` took more from the start, the last one beyond the layer's own limit; ``spent`` int64 [layers], the transfers of
the slots; and ``ended`` bool [layers], whether no larger limit would lead further.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import frozen, inlined, native
from equipoise.robust.numba import inner_products
from equipoise.threads import blocks, for_each

__all__ = ["EMPTY", "LEAST_GAIN", "MAX", "descend"]

EMPTY = -1
MAX = np.int64(2**63 - 1)
LEAST_GAIN = 0.003  # of the excess, for a transfer
ALONG, OWN, COST = 0, 1, 2
WORTH, PROMISE = 0, 3
SLACK = 1.0 + 1e-9  # what rounding may add to a bound on a gain
HALF = 0.5  # of a transfer, that what costs none counts as

Int64s = NDArray[np.int64]


class Layer(NamedTuple):
    """The arguments for one layer, and what follows from them, kept up to date rank by rank.

    Of experts: ``replicas`` int64; float64 ``each`` and ``more``, what part of its expert a replica is, now and with
    one more; ``product`` [experts, experts], the inner products of their rows, and ``square_of``, its diagonal;
    ``ease``, what one more replica gains on the ranks that hold the expert.

    Of ranks: ``times`` int16 [ranks, experts], replicas of each expert; ``load`` int64 [ranks, rows] and ``square``
    int64 [ranks], the sum of its squares; ``along`` float64 [ranks, experts], inner products of the load and the
    experts' rows; ``pair`` float64 [ranks, ranks, 4], gain for its cost and slots of the best swap, below 0 if not
    known, and what it does not exceed; ``changed`` bool [ranks], whose load a step changes.

    Scratch: ``side`` [2, slots, 3] and ``both`` [experts].

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
    side: Any
    both: Any


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
        np.empty(experts), np.empty(experts),
        np.zeros((ranks, len(rows)), dtype=np.int64), np.zeros(ranks, dtype=np.int64), np.zeros((ranks, experts)),
        product.astype(np.float64), np.diag(product).astype(np.float64), np.zeros(experts),
        np.zeros((ranks, ranks, 4)), np.zeros(ranks, dtype=np.bool_),
        np.zeros((2, held.shape[1], 3)), np.zeros(experts),
    )  # fmt: skip
    for g in range(ranks):
        for s in range(held.shape[1]):
            if held[g, s] >= 0:
                layer.times[g, held[g, s]] += 1
                layer.replicas[held[g, s]] += 1
    for e in range(experts):
        _weigh(layer, e)
    for g in range(ranks):
        _note_rank(layer, g)
    return layer


@inlined
def _weigh(layer, e):
    """Note what part of its expert a replica is: now, and with one more."""
    layer.each[e] = 1.0 / max(layer.replicas[e], 1)
    layer.more[e] = 1.0 / (layer.replicas[e] + 1)


@inlined
def _note_rank(layer, g):
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
        _note_changed(layer, a, b, g, h)
        _make(layer, a, b, g, i, h, j)
        after = layer.square.sum()
        if after >= objective:  # but for rounding it would have gained
            if h < 0:
                _make(layer, b, a, g, i, h, j)
            else:
                _make(layer, a, layer.held[g, i], g, i, h, j)
            break
        objective = after
        spent += cost
        most = max(most, spent)
        curve[most] = objective
    for k in range(1, len(curve)):
        curve[k] = min(curve[k], curve[k - 1])
    return spent, ended


@inlined
def _is_new(layer, g, e):
    return np.int64(e >= 0 and not layer.was[g, e])


@inlined
def _cost_of_swap(layer, g, i, h, j):
    a, b = layer.held[g, i], layer.held[h, j]
    return _is_new(layer, h, a) - _is_new(layer, g, a) + _is_new(layer, g, b) - _is_new(layer, h, b)


@inlined
def _note_changed(layer, a, b, g, h):
    """Note which ranks' load a step changes."""
    for r in range(len(layer.changed)):
        has = h < 0 and (layer.times[r, a] > 0 or (b >= 0 and layer.times[r, b] > 0))
        layer.changed[r] = has or r in (g, h)


@inlined
def _make(layer, a, b, g, i, h, j):
    """Let ``a`` take slot i of g from ``b``, either maybe nobody; or, where h is a rank, swap with slot j of h."""
    if h >= 0:
        other = layer.held[h, j]
        _put(layer, g, i, other)
        _put(layer, h, j, b)
    else:
        _put(layer, g, i, a)
        if a >= 0:
            layer.replicas[a] += 1
            _weigh(layer, a)
        if b >= 0:
            layer.replicas[b] -= 1
            _weigh(layer, b)
    for r in range(len(layer.changed)):
        if layer.changed[r]:
            _note_rank(layer, r)


@inlined
def _put(layer, g, i, e):
    if layer.held[g, i] >= 0:
        layer.times[g, layer.held[g, i]] -= 1
    if e >= 0:
        layer.times[g, e] += 1
    layer.held[g, i] = e if e >= 0 else EMPTY


@inlined
def _best_step(layer):
    """Return the gain for its cost of the best step, and a, g, i, h, j; h is -1 where a takes slot i of g."""
    best, a, g, i = _best_take(layer)
    ranks, h, j = len(layer.held), -1, -1
    for r in range(ranks):
        for q in range(r + 1, ranks):
            if layer.node[r] != layer.node[q]:
                continue
            if layer.pair[r, q, WORTH] < 0.0 and layer.pair[r, q, PROMISE] > best:
                layer.pair[r, q, PROMISE] = _promise(layer, r, q)
                if layer.pair[r, q, PROMISE] > best:
                    layer.pair[r, q, WORTH], layer.pair[r, q, 1], layer.pair[r, q, 2] = _best_swap(layer, r, q)
            if layer.pair[r, q, WORTH] > best:
                best, g, h = layer.pair[r, q, WORTH], r, q
    if h >= 0:
        i, j = int(layer.pair[g, h, 1]), int(layer.pair[g, h, 2])
        a = np.int64(layer.held[g, i])
    return best, a, g, i, h, j


@inlined
def _promise(layer, g, h):
    """Note what the replicas of two ranks take along to the other one; return what no swap of them exceeds.

    What two replicas have in common makes up for no more than their own squares.
    """
    most, least, leaves, comes = -np.inf, np.inf, 2.0, 2.0
    for s in range(layer.held.shape[1]):
        _note_side(layer, 0, g, h, s)
        most, leaves = max(most, layer.side[0, s, ALONG]), min(leaves, layer.side[0, s, COST])
        _note_side(layer, 1, h, g, s)
        least, comes = min(least, layer.side[1, s, ALONG]), min(comes, layer.side[1, s, COST])
    return 2.0 * SLACK * (most - least) / max(leaves + comes, HALF)


@inlined
def _note_side(layer, side, r, q, s):
    """Note of slot s of rank r what its replica takes along to q, its own square, and the transfers that this costs.

    What cannot go takes along infinitely little from the first side, or much from the second.
    """
    e = layer.held[r, s]
    layer.side[side, s] = 0.0
    if e < EMPTY or (e >= 0 and layer.times[q, e] > 0):
        layer.side[side, s, ALONG] = np.inf if side else -np.inf
    elif e >= 0:
        apart = layer.along[q, e] - layer.along[r, e] if side else layer.along[r, e] - layer.along[q, e]
        layer.side[side, s, ALONG] = apart * layer.each[e]
        layer.side[side, s, OWN] = layer.product[e, e] * layer.each[e] * layer.each[e]
        layer.side[side, s, COST] = _is_new(layer, q, e) - _is_new(layer, r, e)


@inlined
def _best_swap(layer, g, h):
    """Return the gain for its cost of the best swap of two ranks, as noted of them, and the slots of each."""
    best, best_i, best_j = 0.0, 0, 0
    for i in range(layer.held.shape[1]):
        a = layer.held[g, i]
        for j in range(layer.held.shape[1]):
            cost = max(layer.side[0, i, COST] + layer.side[1, j, COST], HALF)
            if 2.0 * SLACK * (layer.side[0, i, ALONG] - layer.side[1, j, ALONG]) <= best * cost:
                continue
            b = layer.held[h, j]
            half = layer.side[0, i, ALONG] - layer.side[0, i, OWN] - layer.side[1, j, ALONG] - layer.side[1, j, OWN]
            if a >= 0 and b >= 0:
                half += 2.0 * layer.product[a, b] * layer.each[a] * layer.each[b]
            worth = 2.0 * half / cost
            if worth > best:
                best, best_i, best_j = worth, i, j
    return best, np.float64(best_i), np.float64(best_j)


@inlined
def _best_take(layer):
    """Return the gain for its cost of the best take, and the expert, rank and slot."""
    best, best_a, best_g, best_i = 0.0, np.int64(-1), -1, -1
    _note_ease(layer)
    for g in range(len(layer.held)):
        for i in range(layer.held.shape[1]):
            b = layer.held[g, i]
            if b < EMPTY or (b >= 0 and layer.replicas[b] < 2):
                continue
            freed = _note_both(layer, g, b, 1.0)
            other, each = max(b, 0), layer.each[b] if b >= 0 else 0.0
            for a in range(len(layer.ease)):
                gain = layer.ease[a] + freed
                gain -= (2.0 * layer.along[g, a] + layer.square_of[a] * layer.more[a]) * layer.more[a]
                gain += 2.0 * layer.product[other, a] * each * layer.more[a] + layer.both[a]
                if 2.0 * gain <= best or layer.times[g, a] > 0 or layer.home[a] != layer.node[g]:
                    continue
                cost = _is_new(layer, g, a) - _is_new(layer, g, b)
                worth = gain / max(np.float64(cost), HALF)
                if worth > best:
                    best, best_a, best_g, best_i = worth, np.int64(a), g, i
            _note_both(layer, g, b, 0.0)
    return best, best_a, best_g, best_i


@inlined
def _note_ease(layer):
    """Note what one replica more of each expert gains on the ranks that hold it."""
    layer.ease[:] = 0.0
    for g in range(len(layer.held)):
        for s in range(layer.held.shape[1]):
            e = layer.held[g, s]
            if e >= 0:
                less = layer.each[e] - layer.more[e]
                layer.ease[e] += 2.0 * layer.along[g, e] * less - layer.product[e, e] * less * less


@inlined
def _note_both(layer, g, b, there):
    """Return what b gains by giving up a slot of rank g; note where it is with others, one falling as b rises.

    ``there`` is 1, or 0 to forget what was noted.
    """
    if b < 0:
        return 0.0
    each = layer.each[b]
    rise = 1.0 / (layer.replicas[b] - 1) - each
    freed = 2.0 * layer.along[g, b] * each - layer.product[b, b] * each * each
    for r in range(len(layer.held)):
        if r != g and layer.times[r, b] > 0:
            freed -= 2.0 * layer.along[r, b] * rise + layer.product[b, b] * rise * rise
            for s in range(layer.held.shape[1]):
                a = layer.held[r, s]
                if a >= 0:
                    more = 2.0 * (layer.each[a] - layer.more[a]) * rise * layer.product[a, b]
                    layer.both[a] = (layer.both[a] + more) * there
    return freed
