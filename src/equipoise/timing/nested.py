"""One placement for several batch sizes: descent on the busiest rank of the batch that is worst off.

Each slot has a level: the first batch, by number, in which its replica is active; it is so in every larger one. So the
active set of a smaller batch lies inside that of a larger whatever is done. Costs of a batch are in parts of what its
busiest rank may take, so that all batches compare. The busiest rank of all comes first. It is helped by one of

swap       two slots of two ranks change places, levels included;
exchange   two replicas of an expert change levels;
sleep      a replica is active in larger batches alone;
wake       a dormant replica of one of its experts is active from this batch on;
replace    so is a new replica, in a slot that is active in no batch;
convert    a replica of another expert, which has more of them, becomes one of its experts.

A step leaves every rank that it touches, in every batch, below the busiest before it, so no step is ever undone. Where
none helps, this batch may not get slower any more, and the next comes first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import allocating, inlined, native
from equipoise.timing.costs import TOP, cost
from equipoise.timing.ranks import holds

__all__ = ["nest_rows"]

MOST_STEPS = 4  # for each slot of a layer
FAR = 4  # kicks

NOTHING, SWAP, EXCHANGE, SLEEP, WAKE, REPLACE, CONVERT = (np.int64(kind) for kind in range(7))
TOO_MUCH, TOP_LOAD = np.int64(2**62), np.int64(TOP)


class Nest(NamedTuple):
    """One layer while it is planned for several batches.

    held int32 [ranks, slots]; level int64 [ranks, slots], the number of batches where it is active in none; load int64
    [batches, ranks]; count int64 [batches, experts], active replicas; each int64 [batches, experts, 3], what each of
    them costs, would cost with one more, and with one less, which is the last; most int64 [batches], what a rank may
    come to.
    """

    held: Any
    level: Any
    load: Any
    count: Any
    each: Any
    most: Any


class Asked(NamedTuple):
    """What costs are made of: curve, scale float64 [batches], tokens float64 [batches, experts]."""

    curve: Any
    scale: Any
    tokens: Any


@native
def nest_rows(curve, tokens, goals, held, level, per_node, kicks):
    """Improve ``held`` int32 and ``level`` int64 [rows, ranks, slots] for ``tokens`` float64 [rows, batches, experts].

    ``goals`` float64 [rows, batches], without what is fixed: what the busiest rank may take, above 0; it is set to what
    it takes. Replicas stay among ``per_node`` consecutive ranks. Where it takes more, descent is left and taken up
    again so often: ``kicks``.
    """
    rows, batches, experts = tokens.shape
    num_ranks = held.shape[1]
    load, most = np.empty((batches, num_ranks), np.int64), np.empty(batches, np.int64)
    count, each = np.empty((batches, experts), np.int64), np.empty((batches, experts, 3), np.int64)
    for row in range(rows):
        nest = Nest(held[row], level[row], load, count, each, most)
        asked = Asked(curve, TOP / goals[row], tokens[row])
        _read(nest, asked)
        if kicks > 0:
            _wander(nest, asked, per_node, kicks)
        _descend(nest, asked, per_node, np.bool_(False))
        for b in range(batches):
            goals[row, b] *= load[b].max() / TOP


@allocating
def _read(nest, asked):
    """Set counts, costs and loads from slots and levels."""
    batches, num_ranks = nest.load.shape
    slots = nest.held.shape[1]
    nest.count[:] = 0
    nest.load[:] = 0
    for b in range(batches):
        for g in range(num_ranks):
            for s in range(slots):
                nest.count[b, nest.held[g, s]] += nest.level[g, s] <= b
        for e in range(nest.count.shape[1]):
            _cost(nest, asked, b, e)
        for g in range(num_ranks):
            for s in range(slots):
                if nest.level[g, s] <= b:
                    nest.load[b, g] += nest.each[b, nest.held[g, s], 0]


@allocating
def _cost(nest, asked, b, e):
    """Set what replicas of ``e`` cost in batch ``b``; one less than one is as many."""
    for more in range(-1, 2):
        count = max(nest.count[b, e] + more, 1)
        nest.each[b, e, more] = cost(asked.curve, asked.scale[b], asked.tokens[b, e], count)


@allocating
def _descend(nest, asked, per_node, worst_only):
    """Make steps until none helps any batch, or the one that is worst off."""
    batches = len(nest.most)
    settled = np.zeros(batches, np.bool_)
    for _ in range(MOST_STEPS * nest.held.size):
        b, g = np.int64(-1), np.int64(-1)
        for c in range(batches):
            h = np.argmax(nest.load[c])
            if settled[c]:
                nest.most[c] = nest.load[c, h]
            elif b < 0 or nest.load[c, h] > nest.load[b, g]:
                b, g = c, h
        if b < 0:
            break
        for c in range(batches):
            if not settled[c]:
                nest.most[c] = min(nest.load[b, g] - 1, max(nest.load[c].max(), TOP_LOAD))
        kind, s, h, t = _find(nest, settled, b, g, (g // per_node * per_node, per_node))
        if kind == NOTHING:
            h, t = _find_idle(nest, settled, b)
            if h >= 0:
                _make(nest, asked, b, (SLEEP, h, t, h, t))
                continue
            settled[b] = True
            if worst_only:
                break
        else:
            _make(nest, asked, b, (kind, g, s, h, t))


@allocating
def _find_idle(nest, settled, b):
    """Return rank and slot of the replica that may sleep and leaves its rank most time in batch ``b``, or -1."""
    best, found = np.int64(0), (np.int64(-1), np.int64(-1))
    for h in range(nest.held.shape[0]):
        for t in range(nest.held.shape[1]):
            e = nest.held[h, t]
            if nest.level[h, t] > b or nest.count[b, e] < 2 or nest.each[b, e, 0] <= best:
                continue
            if _after_less(nest, settled, (h, t), (nest.level[h, t], b + 1)) < TOO_MUCH:
                best, found = nest.each[b, e, 0], (h, t)
    return found


@allocating
def _wander(nest, asked, per_node, kicks):
    """Leave a descent that ends above what is asked by kicks, and take up another; keep the best that is come by.

    After ``FAR`` kicks that lead to nothing better, it begins again from the best.
    """
    _descend(nest, asked, per_node, np.bool_(True))
    best, draw, away = _copy(nest), 1, 0
    for _ in range(kicks):
        if best.load.max() <= TOP:
            break
        if away == FAR:
            _restore(nest, best)
            away = 0
        draw = (draw * 1664525 + 1013904223) % 2**32
        _kick(nest, asked, per_node, draw // 2**12)
        _descend(nest, asked, per_node, np.bool_(True))
        away += 1
        if nest.load.max() < best.load.max():
            _restore(best, nest)
            away = 0
    _restore(nest, best)


@allocating
def _kick(nest, asked, per_node, draw):
    """Help the busiest rank by one of its slots and one other rank, whatever that does to other batches."""
    settled, b, g = np.ones(len(nest.most), np.bool_), np.int64(0), np.int64(0)
    for c in range(len(nest.most)):
        h = np.argmax(nest.load[c])
        if nest.load[c, h] > nest.load[b, g]:
            b, g = c, h
    nest.most[:] = TOO_MUCH - 1
    nest.most[b] = nest.load[b, g] - 1
    settled[b] = False
    other = g // per_node * per_node + draw % per_node
    kind, s, h, t = _find(nest, settled, b, g, (other, np.int64(1)))
    if kind != NOTHING:
        _make(nest, asked, b, (kind, g, s, h, t))


@allocating
def _copy(nest):
    held, level, load, count, each, most = nest
    return Nest(held.copy(), level.copy(), load.copy(), count.copy(), each.copy(), most.copy())


@allocating
def _restore(nest, saved):
    """Set all of ``nest`` to what was saved."""
    for g in range(nest.held.shape[0]):
        for s in range(nest.held.shape[1]):
            nest.held[g, s], nest.level[g, s] = saved.held[g, s], saved.level[g, s]
    for c in range(len(nest.most)):
        for g in range(nest.load.shape[1]):
            nest.load[c, g] = saved.load[c, g]
        for e in range(nest.count.shape[1]):
            nest.count[c, e] = saved.count[c, e]
            for k in range(nest.each.shape[2]):
                nest.each[c, e, k] = saved.each[c, e, k]


@allocating
def _find(nest, settled, b, g, ranks):
    """Return the kind of step that helps rank ``g`` in batch ``b`` most, its slot, and the other rank and slot.

    That is one of ``ranks``, the first of them and how many.
    """
    held, level = nest.held, nest.level
    best, found = nest.most[b] + 1, (NOTHING, np.int64(0), np.int64(0), np.int64(0))
    for s in range(held.shape[1]):
        if level[g, s] > b:
            continue
        after = _after_less(nest, settled, (g, s), (level[g, s], b + 1))
        if after < best:
            best, found = after, (SLEEP, s, g, s)
        large = nest.each[b, held[g, s], 0] * held.shape[1] > nest.load[b, g]  # others are not worth a replica more
        for h in range(ranks[0], ranks[0] + ranks[1]):
            if h == g or nest.load[b, h] >= best:
                continue
            there = holds(held, h, held[g, s]) or not large
            for t in range(held.shape[1]):
                if held[h, t] == held[g, s]:
                    kinds = (EXCHANGE, WAKE if large else NOTHING) if level[h, t] > b else (NOTHING, NOTHING)
                else:
                    swap = SWAP if _may_swap(nest, b, (g, s, h, t), best) else NOTHING
                    more = NOTHING if there else REPLACE if level[h, t] == len(nest.most) else CONVERT
                    kinds = (swap, more if more != CONVERT or _may_convert(nest, b, (g, s, h, t), best) else NOTHING)
                for kind in kinds:
                    if kind != NOTHING:
                        after = _after(nest, settled, b, kind, (g, s, h, t))
                        if after < best and kind == CONVERT:
                            after = max(after, _after_less(nest, settled, (h, t), (level[h, t], len(nest.most))))
                        if after < best:
                            best, found = after, (kind, s, h, t)
    return found


@inlined
def _may_swap(nest, b, slots, best):
    """Whether a swap helps in its batch, and no rank then holds an expert twice."""
    g, s, h, t = slots
    held, each, level = nest.held, nest.each, nest.level
    more = each[b, held[g, s], 0] - (each[b, held[h, t], 0] if level[h, t] <= b else 0)
    if more <= 0 or nest.load[b, h] + more >= best:
        return False
    for i in range(held.shape[1]):
        if (i != t and held[h, i] == held[g, s]) or (i != s and held[g, i] == held[h, t]):
            return False
    return True


@inlined
def _may_convert(nest, b, slots, best):
    """Whether one more replica helps in its batch, in a slot whose expert has another wherever it is active."""
    g, s, h, t = slots
    e, f, level = nest.held[g, s], nest.held[h, t], nest.level[h, t]
    if level > b or nest.load[b, g] + nest.each[b, e, 1] - nest.each[b, e, 0] >= best:
        return False
    if nest.load[b, h] + nest.each[b, e, 1] - nest.each[b, f, 0] >= best:
        return False
    for c in range(level, len(nest.most)):  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if nest.count[c, f] < 2:
            return False
    return True


@inlined
def _after(nest, settled, b, kind, slots):
    """Return the busier of both ranks of a step in all batches that are not settled, ``TOO_MUCH`` if it may not be."""
    g, s, h, t = slots
    held, level, load, each, most = nest.held, nest.level, nest.load, nest.each, nest.most
    e, f, after = held[g, s], held[h, t], np.int64(0)
    for c in range(len(most)):
        if kind in (SWAP, EXCHANGE):
            more = (each[c, e, 0] if level[g, s] <= c else 0) - (each[c, f, 0] if level[h, t] <= c else 0)
            own, other = load[c, g] - more, load[c, h] + more
        else:
            wakes = level[h, t] <= c if kind == CONVERT else b <= c < level[h, t]
            own = load[c, g] + (each[c, e, 1] - each[c, e, 0] if wakes and level[g, s] <= c else 0)
            other = load[c, h] + (each[c, e, 1] if wakes else 0) - (each[c, f, 0] if kind == CONVERT and wakes else 0)
        if own > most[c] or other > most[c]:
            return TOO_MUCH
        if not settled[c]:
            after = max(after, own, other)
    return after


@inlined
def _after_less(nest, settled, slot, batches):
    """Return the busiest of all ranks that a replica leaves more to where it sleeps in some batches, as above."""
    g, s = slot
    held, level, load, each, most = nest.held, nest.level, nest.load, nest.each, nest.most
    e, after = held[g, s], np.int64(0)
    for c in range(batches[0], batches[1]):
        if nest.count[c, e] < 2:
            return TOO_MUCH
    for c in range(batches[0], batches[1]):
        for h in range(len(load[c])):
            for t in range(held.shape[1]):
                if held[h, t] == e and level[h, t] <= c and h != g:
                    own = load[c, h] + each[c, e, -1] - each[c, e, 0]
                    if own > most[c]:
                        return TOO_MUCH
                    if not settled[c]:
                        after = max(after, own)
    return after


@allocating
def _make(nest, asked, b, step):
    """Make a step, and bring counts, costs and loads up to date."""
    kind, g, s, h, t = step
    held, level = nest.held, nest.level
    e, f = np.int64(held[g, s]), np.int64(held[h, t])
    _lift(nest, e, np.int64(-1))
    if f != e:
        _lift(nest, f, np.int64(-1))
    if kind == SWAP:
        held[g, s], held[h, t] = f, e
    if kind in (SWAP, EXCHANGE):
        level[g, s], level[h, t] = level[h, t], level[g, s]
    elif kind == SLEEP:
        for c in range(level[g, s], b + 1):
            nest.count[c, e] -= 1
        level[g, s] = b + 1
    elif kind == CONVERT:
        for c in range(level[h, t], len(nest.most)):
            nest.count[c, e] += 1
            nest.count[c, f] -= 1
            _cost(nest, asked, c, f)
        held[h, t] = e
    else:
        for c in range(b, level[h, t]):
            nest.count[c, e] += 1
        held[h, t], level[h, t] = e, b
    for c in range(len(nest.most)):
        _cost(nest, asked, c, e)
    _lift(nest, e, np.int64(1))
    if f != e:
        _lift(nest, f, np.int64(1))


@allocating
def _lift(nest, e, sign):
    """Add what all active replicas of ``e`` cost to their ranks, or take it away."""
    held, level, load, each = nest.held, nest.level, nest.load, nest.each
    for g in range(held.shape[0]):
        for s in range(held.shape[1]):
            if held[g, s] == e:
                for c in range(level[g, s], len(nest.most)):
                    load[c, g] += sign * each[c, e, 0]
