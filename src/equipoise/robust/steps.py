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

Where no step is worth its transfers, chains of steps are tried (variable-depth search, Kernighan and Lin 1970): each
of the ``HOTTEST`` experts whose replicas carry most, half of the mean rank load at least, takes the slot that costs it
least, whatever that loses, and up to ``DEPTH`` best steps follow, none of which takes a slot of that expert. Of all
beginnings of chains that cost ``LEFT`` transfers or more, the one that gains most for them is made as if it were one
step. So an expert that is too hot for one rank is split, which pays only once others have made room.

Gains are worked out in float64 from the exact inner products of the rows of experts, as if a replica weighed exactly
its part of the row; the objective itself has replicas rounded down.

Returned are the slots; ``curve`` int64 [layers, max(limit) + 1], the objective within each limit, 2**63 - 1 where
``held`` took more from the start, the last one beyond the layer's own limit; ``spent`` int64 [layers], the transfers of
the slots; and ``ended`` bool [layers], whether it is known that no larger limit would lead further.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import allocating, frozen, inlined, internal, native, spliced
from equipoise.robust.numba import inner_products
from equipoise.threads import blocks, for_each

__all__ = ["EMPTY", "LEAST_GAIN", "MAX", "descend"]

EMPTY = -1
MAX = np.int64(2**63 - 1)
LEAST_GAIN = 0.003  # of the excess, for a transfer
ALONG, OWN, COST = 0, 1, 2
WORTH, PROMISE = 0, 3
HERE, THERE = np.int64(0), np.int64(1)  # the sides of a swap
SLACK = 1.0 + 1e-9  # what rounding may add to a bound on a gain
HALF = 0.5  # of a transfer, that what costs none counts as
HOTTEST, DEPTH = 4, 5
HOT = 0.5  # of the mean rank load: no replica that carries less needs others to make room
LEFT = 3  # transfers that a chain costs at least: with fewer left, none is tried
NOBODY = np.int64(-1)
TRIED, BEST, FIRST = (
    np.int64(0),
    np.int64(1),
    np.int64(0),
)  # typed: a literal is a type of its own to numba

Int64s = NDArray[np.int64]


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
    ``_make`` was told for each step of the chain that is tried, and of the best.

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
        layer = _new_layer(rows[at], held[at], was[at], node, home[at], product)
        told[at, 0], told[at, 1] = _descend(layer, asked[at, 0], asked[at, 1], curve[at])


@allocating
def _new_layer(rows, held, was, node, home, product):
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
    _begin(layer)
    return layer


@internal
def _begin(layer):
    """Note of experts and ranks what follows from the slots."""
    layer.split[0] = NOBODY
    for g in range(len(layer.held)):
        for s in range(layer.held.shape[1]):
            if layer.held[g, s] >= 0:
                layer.times[g, layer.held[g, s]] += 1
                layer.replicas[layer.held[g, s]] += 1
    for e in range(len(layer.each)):
        layer.square_of[e] = layer.product[e, e]
        _weigh(layer, e)
    for g in range(len(layer.held)):
        _note_rank(layer, g)


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


@spliced
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
        worth, a, g, i, h, j = _best_step(layer)
        number, cost = 1, np.int64(0)
        if worth > least:
            cost = _note_step(layer, BEST, FIRST, a, g, i, h, j)
        elif limit - spent < LEFT:
            ended = False
            break
        else:
            number, cost = _best_chain(layer, objective, level)
        if number == 0:
            break
        if spent + cost > limit:
            ended = False
            break
        for step in range(number):
            _make(layer, BEST, step)
        after = layer.square.sum()
        if after >= objective:  # but for rounding it would have gained
            _unmake(layer, BEST, FIRST)
            break
        objective = after
        spent += cost
        most = max(most, spent)
        curve[most] = objective
    for k in range(1, len(curve)):
        curve[k] = min(curve[k], curve[k - 1])
    return spent, ended


@spliced
def _best_chain(layer, objective, level):
    """Note the chain that gains most for its transfers, if that is enough; return its steps, maybe none, and cost."""
    best, best_cost, best_number = LEAST_GAIN * np.float64(max(objective - level, 1)), np.int64(0), 0
    hot = HOT * HOT * np.float64(level) / len(layer.held)
    hottest = NOBODY
    for _ in range(min(HOTTEST, len(layer.each))):
        hottest = _next_hottest(layer, hottest)
        if layer.square_of[hottest] * layer.each[hottest] * layer.each[hottest] < hot:
            break
        g, i = _least_taken(layer, hottest)
        a = np.int64(hottest)
        h = j = NOBODY
        number, total, worth = FIRST, np.int64(0), 1.0
        layer.split[0] = hottest
        while g >= 0 and worth > 0.0:
            total += _note_step(layer, TRIED, number, a, g, i, h, j)
            _make(layer, TRIED, number)
            number += 1
            gains = np.float64(objective - layer.square.sum()) / max(np.float64(total), HALF)
            if total >= LEFT and gains > best:
                best, best_cost, best_number = gains, total, number
                for step in range(number):
                    for k in range(layer.chain.shape[2]):
                        layer.chain[BEST, step, k] = layer.chain[TRIED, step, k]
            if number > DEPTH:
                break
            worth, a, g, i, h, j = _best_step(layer)
        for step in range(number - 1, -1, -1):
            _unmake(layer, TRIED, step)
    layer.split[0] = NOBODY
    return best_number, best_cost


@inlined
def _next_hottest(layer, last):
    """Return the expert whose replicas carry most after those of ``last``, or most of all; ties to the lowest."""
    found, most, bound = NOBODY, -1.0, np.inf
    if last >= 0:
        bound = layer.square_of[last] * layer.each[last] * layer.each[last]
    for e in range(len(layer.each)):
        own = layer.square_of[e] * layer.each[e] * layer.each[e]
        if own > most and (own < bound or (own == bound and e > last)):
            found, most = e, own
    return found


@inlined
def _least_taken(layer, a):
    """Return the rank and slot that ``a`` takes with the largest gain, maybe below zero; -1 where there is none."""
    best, best_g, best_i = -np.inf, -1, -1
    _note_ease(layer)
    for g in range(len(layer.held)):
        if layer.times[g, a] > 0 or layer.home[a] != layer.node[g]:
            continue
        for i in range(layer.held.shape[1]):
            b = np.int64(layer.held[g, i])
            if b < EMPTY or (b >= 0 and layer.replicas[b] < 2):
                continue
            freed = _note_both(layer, g, b, 1.0)
            other, each = max(b, 0), layer.each[b] if b >= 0 else 0.0
            shared = each * layer.product[other, a] - layer.along[g, a]
            gain = layer.ease[a] + freed + 2.0 * layer.more[a] * shared + layer.both[a]
            if gain > best:
                best, best_g, best_i = gain, g, i
            _note_both(layer, g, b, 0.0)
    return best_g, best_i


@inlined
def _note_step(layer, chain, step, a, g, i, h, j):
    """Note that a takes slot i of g, or, where h is a rank, that slots i and j swap; return the transfers it costs."""
    b = np.int64(layer.held[g, i])
    noted = layer.chain[chain, step]
    noted[0], noted[1], noted[2], noted[3], noted[4], noted[5] = a, b, g, i, h, j
    return _is_new(layer, g, a) - _is_new(layer, g, b) if h < 0 else _cost_of_swap(layer, g, i, h, j)


@inlined
def _is_new(layer, g, e):
    return np.int64(e >= 0 and not layer.was[g, e])


@inlined
def _cost_of_swap(layer, g, i, h, j):
    a, b = np.int64(layer.held[g, i]), np.int64(layer.held[h, j])
    return _is_new(layer, h, a) - _is_new(layer, g, a) + _is_new(layer, g, b) - _is_new(layer, h, b)


@inlined
def _note_changed(layer, a, b, g, h):
    """Note which ranks' load a step changes."""
    for r in range(len(layer.changed)):
        has = h < 0 and (layer.times[r, a] > 0 or (b >= 0 and layer.times[r, b] > 0))
        layer.changed[r] = has or r in (g, h)


@internal
def _make(layer, chain, step):
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
            _weigh(layer, a)
        if b >= 0:
            layer.replicas[b] -= 1
            _weigh(layer, b)
    for r in range(len(layer.changed)):
        if layer.changed[r]:
            _note_rank(layer, r)


@inlined
def _unmake(layer, chain, step):
    """Take a noted step back, the last that was made."""
    noted = layer.chain[chain, step]
    if noted[4] < 0:
        noted[0], noted[1] = noted[1], noted[0]
    else:
        noted[0] = layer.held[noted[2], noted[3]]
    _make(layer, chain, step)


@inlined
def _put(layer, g, i, e):
    if layer.held[g, i] >= 0:
        layer.times[g, layer.held[g, i]] -= 1
    if e >= 0:
        layer.times[g, e] += 1
    layer.held[g, i] = e if e >= 0 else EMPTY


@internal
def _best_step(layer):
    """Return the gain for its cost of the best step, and a, g, i, h, j; h is -1 where a takes slot i of g."""
    best, a, g, i = _best_take(layer)
    ranks, h, j = len(layer.held), NOBODY, NOBODY
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
        _note_side(layer, HERE, g, h, s)
        most, leaves = max(most, layer.side[0, s, ALONG]), min(leaves, layer.side[0, s, COST])
        _note_side(layer, THERE, h, g, s)
        least, comes = min(least, layer.side[1, s, ALONG]), min(comes, layer.side[1, s, COST])
    return 2.0 * SLACK * (most - least) / max(leaves + comes, HALF)


@inlined
def _note_side(layer, side, r, q, s):
    """Note of slot s of rank r what its replica takes along to q, its own square, and the transfers that this costs.

    What cannot go takes along infinitely little from the first side, or much from the second.
    """
    e = np.int64(layer.held[r, s])
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
            b = np.int64(layer.held[g, i])
            if b < EMPTY or (b >= 0 and (layer.replicas[b] < 2 or b == layer.split[0])):
                continue
            freed = _note_both(layer, g, b, 1.0)
            other, each = max(b, 0), layer.each[b] if b >= 0 else 0.0
            for a in range(len(layer.ease)):
                shared = each * layer.product[other, a] - layer.along[g, a]
                layer.gain[a] = layer.ease[a] + freed + 2.0 * layer.more[a] * shared + layer.both[a]
            for a in range(len(layer.ease)):
                gain = layer.gain[a]
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
    """Note what one replica more of each expert gains on the ranks that hold it, less its own square."""
    layer.ease[:] = 0.0
    for g in range(len(layer.held)):
        for s in range(layer.held.shape[1]):
            e = layer.held[g, s]
            if e >= 0:
                less = layer.each[e] - layer.more[e]
                layer.ease[e] += 2.0 * layer.along[g, e] * less - layer.product[e, e] * less * less
    for e in range(len(layer.ease)):
        layer.ease[e] -= layer.square_of[e] * layer.more[e] * layer.more[e]


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
