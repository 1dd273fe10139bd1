"""One placement for several batch sizes: tabu search until no rank is above its limits, which are lowered then.

What is minimised is by how much all ranks are above the limits in all batches together. The rank and batch that is
furthest above its limit is helped by the step that leaves least of it:

swap       two slots of two ranks change places, levels included;
sleep      a replica is active in larger batches alone;
give       a slot of another rank becomes a replica of one of its experts, active from this batch on or sooner.

The best step is made even if it helps nothing, but for ``TENURE`` steps no replica comes back to where one left (tabu
search; Glover, 1989). Where nothing is above a limit, the limits of the batches that are worst off are lowered, as long
as steps that help lead there; what a batch has come to when they do not, it keeps.
"""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import allocating, inlined, native
from equipoise.timing.costs import TOP
from equipoise.timing.nest import LIMIT, Costs, new_nest, over, put_in_place, read_nest, take_out, toll
from equipoise.timing.ranks import holds

__all__ = ["nest_rows"]

TENURE = 10
TURN = 3  # each so many steps another batch is looked at, whichever is furthest above
PART = 2.0**-10  # by how much limits are lowered at once

NOTHING, SWAP, SLEEP, GIVE = (np.int64(kind) for kind in range(4))
ANY, MORE_THAN = np.inf, 1.001


@native
def nest_rows(curve, tokens, limits, held, level, search):
    """Improve ``held`` int32 and ``level`` int64 [rows, ranks, slots] for ``tokens`` float64 [rows, batches, experts].

    ``limits`` float64 [rows, batches], without what is fixed: what the busiest rank may take, above 0; it is set to
    what it takes. ``search`` is: among how many consecutive ranks replicas stay, the most steps of tabu search, and
    whether limits are lowered after it. Where it does not come to the limits, what is returned is nearest to them.
    """
    per_node, steps, lower = search
    rows, batches, experts = tokens.shape
    for row in range(rows):
        nest = new_nest(held[row], level[row], batches, experts)
        costs = Costs(curve, TOP / limits[row], tokens[row])
        nest.limit[:] = LIMIT
        read_nest(nest, costs)
        if steps > 0:
            _come_to_limits(nest, costs, per_node, steps)
        if lower and over(nest) == 0.0:
            _lower(nest, costs, per_node)
        for c in range(batches):
            limits[row, c] *= nest.load[:, c].max() / TOP


@allocating
def _come_to_limits(nest, costs, per_node, steps):
    """Make steps, helpful or not, until nothing is above a limit; come back to the best that was seen."""
    nest.tabu[:] = -1
    held, level = np.empty_like(nest.held), np.empty_like(nest.level)
    best = over(nest)
    _copy(nest.held, nest.level, held, level)
    for step in range(steps):
        if best == 0:
            break
        g, b = _worst(nest)
        turn = step // TURN % len(nest.limit)
        if step % TURN == 0 and nest.load[:, turn].max() > nest.limit[turn]:
            g, b = np.argmax(nest.load[:, turn]), turn
        _make_best(nest, costs, (g, b), per_node, step, ANY)
        now = over(nest)
        if now < best:
            best = now
            _copy(nest.held, nest.level, held, level)
    _copy(held, level, nest.held, nest.level)
    read_nest(nest, costs)


@allocating
def _lower(nest, costs, per_node):
    """Lower the limits of the batches that are worst off, until none gets faster."""
    nest.tabu[:] = -1
    held, level = np.empty_like(nest.held), np.empty_like(nest.level)
    _copy(nest.held, nest.level, held, level)
    settled, step = np.zeros(len(nest.limit), np.bool_), 0
    while not settled.all():
        busiest, b = _worst_off(nest, settled)
        for c in range(len(settled)):
            if not settled[c]:
                nest.limit[c] = min(LIMIT, np.floor(busiest * (1.0 - PART)))
        before, now = np.inf, over(nest)
        while 0.0 < now < before:
            step += TENURE + 1  # so that nothing is tabu
            _make_best(nest, costs, _worst(nest), per_node, step, 0.0)
            before, now = now, over(nest)
        if _are_within(nest, settled) and _worst_off(nest, settled)[0] < busiest:
            _copy(nest.held, nest.level, held, level)
        else:
            _copy(held, level, nest.held, nest.level)
            read_nest(nest, costs)
            settled[b], nest.limit[b] = True, busiest


@inlined
def _worst_off(nest, settled):
    """Return what the busiest rank takes in the batch that is worst off, of those not settled, and which that is."""
    busiest, b = -1.0, 0
    for c in range(len(settled)):
        if not settled[c]:
            for g in range(nest.load.shape[0]):
                if nest.load[g, c] > busiest:
                    busiest, b = nest.load[g, c], c
    return busiest, b


@inlined
def _are_within(nest, settled):
    """Whether no rank is above the limits of those batches that are settled."""
    for c in range(len(settled)):
        if settled[c]:
            for g in range(nest.load.shape[0]):
                if nest.load[g, c] > nest.limit[c]:
                    return False
    return True


@inlined
def _copy(held, level, other_held, other_level):
    for g in range(held.shape[0]):
        for s in range(held.shape[1]):
            other_held[g, s], other_level[g, s] = held[g, s], level[g, s]


@inlined
def _worst(nest):
    """Return the rank and batch that are furthest above a limit."""
    g, b, most = 0, 0, -np.inf
    for h in range(nest.load.shape[0]):
        for c in range(nest.load.shape[1]):
            if nest.load[h, c] - nest.limit[c] > most:
                g, b, most = h, c, nest.load[h, c] - nest.limit[c]
    return g, b


@allocating
def _make_best(nest, costs, where, per_node, step, enough):
    """Make the step that helps a rank in a batch, ``where``, and leaves least above the limits, if there is one.

    It is not made where it changes that by ``enough`` or more.
    """
    kind, s, h, t = _find(nest, where, per_node, step, enough)
    if kind == NOTHING:
        return
    g, b = where
    held, level, tabu = nest.held, nest.level, nest.tabu
    e, f = np.int64(held[g, s]), np.int64(held[h, t])
    take_out(nest, e)
    if f != e:
        take_out(nest, f)
    if kind == SWAP:
        held[g, s], held[h, t] = f, e
        level[g, s], level[h, t] = level[h, t], level[g, s]
        tabu[e, g] = tabu[f, h] = step + TENURE
    elif kind == SLEEP:
        level[g, s] = b + 1
        tabu[e, g] = step + TENURE
    else:
        held[h, t], level[h, t] = e, min(level[h, t], b)
        tabu[f, h] = step + TENURE
    put_in_place(nest, costs, e)
    if f != e:
        put_in_place(nest, costs, f)


@allocating
def _find(nest, where, per_node, step, enough):
    """Return the kind of the best step, the slot of its rank, and the other rank and slot."""
    g, b = where
    held, level, value = nest.held, nest.level, nest.value
    best, found = enough, (NOTHING, np.int64(0), np.int64(0), np.int64(0))
    for s in range(held.shape[1]):
        if level[g, s] > b:
            continue
        e = held[g, s]
        if _are_several(nest, e, level[g, s], b + 1):
            more = _if_less(nest, e, (g, s), level[g, s], b + 1)
            if more < best:
                best, found = more, (SLEEP, s, g, s)
        large = value[g, s, b] * held.shape[1] > nest.load[g, b]  # others are not worth a replica more
        for h in range(g // per_node * per_node, (g // per_node + 1) * per_node):
            if h == g:
                continue
            there, free = holds(held, h, e), nest.tabu[e, h] < step
            for t in range(held.shape[1]):
                f = held[h, t]
                if f != e and there:
                    continue
                if best <= -nest.above[g]:
                    return found  # the rank is within its limits, and so is the other
                less = value[g, s, b] - value[h, t, b]
                if less > 0.0 and nest.load[h, b] + less < nest.load[g, b]:
                    more = _if_swapped(nest, (g, s), (h, t), best)
                    if more < best and free and nest.tabu[f, g] < step and (f == e or not holds(held, g, f)):
                        best, found = more, (SWAP, s, h, t)
                if large and free and _may_give(nest, e, (h, t), b):
                    more = _if_given(nest, (g, s, b), (h, t), best)
                    if more < best:
                        best, found = more, (GIVE, s, h, t)
    return found


@inlined
def _may_give(nest, e, other, b):
    """Whether a slot may become a replica of ``e`` in batch ``b``: it sleeps, or its expert has others all the time."""
    h, t = other
    f, level = nest.held[h, t], nest.level[h, t]
    return level > b if f == e else _are_several(nest, f, level, len(nest.limit))


@inlined
def _are_several(nest, e, begin, end):
    """Whether an expert has another replica in all of some batches."""
    for c in range(begin, end):  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if nest.count[e, c] < 2:
            return False
    return True


@inlined
def _change(nest, g, c, more):
    """Return by how much more a rank is above the limit of a batch if it gets ``more``."""
    now = nest.load[g, c] - nest.limit[c]
    return toll(now + more) - toll(now)


@inlined
def _if_swapped(nest, one, other, enough):
    """Return what changes if two slots change places, or a part of it that is ``enough`` or more."""
    g, s = one
    h, t = other
    total = -(nest.above[g] + nest.above[h])
    for c in range(len(nest.limit)):
        more = nest.value[g, s, c] - nest.value[h, t, c]
        total += toll(nest.load[g, c] - more - nest.limit[c]) + toll(nest.load[h, c] + more - nest.limit[c])
        if total >= enough:
            break
    return total


@inlined
def _elsewhere(nest, e, ranks, begin, end, number):
    """Return what changes on ranks other than two where replicas of ``e`` cost what one more, or one less, would."""
    total, slots = 0.0, nest.held.shape[1]
    at = nest.first[e]
    while at >= 0:
        g, s = at // slots, at % slots
        if g != ranks[0] and g != ranks[1]:
            for c in range(max(begin, nest.level[g, s]), end):
                total += _change(nest, g, c, nest.each[e, c, number] - nest.each[e, c, 0])
        at = nest.after[at]
    return total


@inlined
def _if_less(nest, e, slot, begin, end):
    """Return what changes if the replica in a slot sleeps, or is another expert's, in some batches."""
    g, s = slot
    total = _elsewhere(nest, e, (g, g), begin, end, np.int64(-1))
    for c in range(begin, end):
        total += _change(nest, g, c, -nest.value[g, s, c])
    return total


@inlined
def _if_given(nest, one, other, enough):
    """Return what changes if a slot becomes a replica of another's expert; a rank that holds both counts twice.

    Or infinity where it is ``enough`` or more whatever other ranks are relieved of.
    """
    g, s, b = one
    h, t = other
    e, f, wakes = nest.held[g, s], nest.held[h, t], min(nest.level[h, t], b)
    end = nest.level[h, t] if f == e else len(nest.limit)
    total = 0.0
    for c in range(wakes, end):
        if nest.level[g, s] <= c:
            total += _change(nest, g, c, nest.each[e, c, 1] - nest.each[e, c, 0])
        total += _change(nest, h, c, nest.each[e, c, 1] - nest.value[h, t, c])
    if total - MORE_THAN * (nest.above.sum() - nest.above[g]) >= enough:
        return np.inf
    total += _elsewhere(nest, e, (g, h), wakes, end, np.int64(1))
    if f != e:
        total += _elsewhere(nest, f, (h, h), nest.level[h, t], end, np.int64(-1))
    return total
