"""The rounds of one layer: which slot gets its expert from where, and when. Native; the contract.

    schedule_layers(old, new, experts, links, table, length, restore)

``old`` and ``new`` int32 [layers, slots], ``experts`` of which each has a slot in ``new``; -1 is an empty slot, and in
``new`` one that may hold anything. Filled are ``table`` int32 [layers, rows, 4], the transfers in order as in
``COLUMNS``, ``length`` int64 [layers], how many, and ``restore`` bool [layers, slots], whose experts no slot of
``old`` holds. What a round may do, and who sends to whom, is promised by ``MigrationSchedule``; of choices that are
equally good the lowest slot is taken. ``rounds_reference.py`` is the plain version, and makes the same transfers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import allocating, inlined, native

__all__ = ["COLUMNS", "Links", "join_layers", "schedule_layers"]

COLUMNS = ("round", "source", "destination", "expert")


class Links(NamedTuple):
    """Who can send to whom, and how much: ``ranks``, how many of them are on a node, what one does in a round."""

    ranks: int
    ranks_per_node: int
    max_sends: int
    max_receives: int


class State(NamedTuple):
    """A layer between its rounds, and the round that is being filled.

    All of the layer: new int32 [slots], the expert that each slot is to hold, -1 for any; content int64
    [slots + ranks], what slots and then spares hold; copies int64 [experts], of each among them; pending bool [slots],
    what has still to be filled; waiting int64 [ranks], how many slots of each rank that is; sent int64 [ranks], what
    each has sent so far; table int32 [rows, 4], the transfers as in ``COLUMNS``.

    Of this round: read and written bool [slots]; going int64 [experts], copies that get overwritten; sends and
    receives int64 [ranks], to and from other ranks.
    """

    new: Any
    content: Any
    copies: Any
    pending: Any
    waiting: Any
    sent: Any
    table: Any
    read: Any
    written: Any
    going: Any
    sends: Any
    receives: Any
    slots_per_rank: Any
    links: Any


@native
def schedule_layers(old, new, experts, links, table, length, restore):
    """Fill each layer's ``table`` with its transfers in order, and mark what to ``restore``; see the contract."""
    for layer in range(len(old)):
        length[layer] = _schedule_layer(old[layer], new[layer], experts, links, table[layer], restore[layer])


@native
def join_layers(table, length, columns):
    """Fill ``columns`` [5, transfers] with the layer of each transfer and what the tables say of it."""
    at = 0
    for layer in range(len(table)):
        for k in range(length[layer]):
            columns[0, at] = layer
            for column in range(table.shape[2]):
                columns[1 + column, at] = table[layer, k, column]
            at += 1


@allocating
def _schedule_layer(old, new, experts, links, table, restore):
    """Fill the table of one layer; return how many transfers there are."""
    slots, ranks = len(old), links.ranks
    state = State(
        new, np.full(slots + ranks, -1, dtype=np.int64), np.zeros(experts, dtype=np.int64),
        np.zeros(slots, dtype=np.bool_), np.zeros(ranks, dtype=np.int64), np.zeros(ranks, dtype=np.int64), table,
        np.zeros(slots, dtype=np.bool_), np.zeros(slots, dtype=np.bool_), np.zeros(experts, dtype=np.int64),
        np.zeros(ranks, dtype=np.int64), np.zeros(ranks, dtype=np.int64),
        slots // ranks, links,
    )  # fmt: skip
    for x in range(slots):
        state.content[x] = old[x]
        if old[x] >= 0:
            state.copies[old[x]] += 1
    for x in range(slots):
        if new[x] >= 0 and new[x] != old[x]:
            restore[x] = state.copies[new[x]] == 0
            state.pending[x] = not restore[x]
            state.waiting[x // state.slots_per_rank] += state.pending[x]
    row = number = np.int64(0)
    while state.waiting.sum() > 0:
        end = _fill_round(state, row, number)
        assert end > row
        _sort_round(table[row:end], slots, state.slots_per_rank)
        _finish_round(state, row, end)
        row, number = end, number + 1
    return row


@allocating
def _fill_round(state, start, number):
    """Put transfers into a round until no more fits; return where it ends in the table.

    First whatever can be filled without keeping anything: a slot whose expert has another copy, or is read in this
    round, and then goes through the spare. Each may let others follow. Then circles, each broken by putting one of its
    experts into a spare until somebody can read it, which may be at once.
    """
    state.read[:] = False
    state.written[:] = False
    state.going[:] = 0
    state.sends[:] = 0
    state.receives[:] = 0
    order = _most_waiting_first(state.waiting)
    marked = np.zeros(len(state.new), dtype=np.bool_)
    row = start
    while True:
        before = row
        for r in order:
            for x in range(r * state.slots_per_rank, (r + 1) * state.slots_per_rank):
                if state.pending[x] and not state.written[x]:
                    row = _fill_slot(state, r, x, np.bool_(False), start, row, number)
        if row > before:
            continue
        _mark_circles(state, marked)
        for r in order:
            for x in range(r * state.slots_per_rank, (r + 1) * state.slots_per_rank):
                if marked[x]:
                    row = _fill_slot(state, r, x, np.bool_(True), start, row, number)
        if row == before:
            return row


@allocating
def _most_waiting_first(waiting):
    """Return the ranks, those with most to receive first, others as they come."""
    order = np.empty(len(waiting), dtype=np.int64)
    for r in range(len(waiting)):
        at = r
        while at > 0 and waiting[order[at - 1]] < waiting[r]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = r
    return order


@inlined
def _fill_slot(state, r, x, in_circle, start, row, number):
    """Fill slot ``x`` of rank ``r`` in this round, if that can be; return where the round ends then."""
    f, spare = state.content[x], len(state.new) + r
    through_spare = in_circle or state.read[x]
    if through_spare and state.content[spare] >= 0:
        return row
    # What x holds must be somewhere else, or on its way, and its rank must not want it elsewhere.
    leaves = f < 0 or in_circle or state.read[x] or state.copies[f] - state.going[f] > 1
    if not leaves or (f >= 0 and not in_circle and _local_need(state, f, x, r) >= 0):
        return row
    y = _source(state, state.new[x], r)
    if y < 0:
        return row
    if y < len(state.new) and state.written[y]:
        row, y = _stash(state, y, row, number)
    if through_spare:
        for k in range(start, row):  # who reads x in this round reads the spare instead
            if state.table[k, 1] == x:
                state.table[k, 1] = spare
        row, _ = _stash(state, x, row, number)
    if f >= 0:
        state.going[f] += 1
    _note_transfer(state, row, number, y, x, np.int64(state.new[x]))
    state.written[x] = True
    if y < len(state.new):
        state.read[y] = True
    s = _rank_of(state, y)
    if s != r:
        state.sends[s] += 1
        state.sent[s] += 1
        state.receives[r] += 1
    return row + 1


@inlined
def _stash(state, x, row, number):
    """Copy what slot ``x`` held before the round into the spare of its rank; return where the round ends, and that."""
    e, spare = state.content[x], len(state.new) + x // state.slots_per_rank
    _note_transfer(state, row, number, x, spare, e)
    state.content[spare] = e
    state.copies[e] += 1
    return row + 1, spare


@inlined
def _finish_round(state, start, end):
    """Let slots hold what they got, and free the spares that nobody needs any more."""
    slots = len(state.new)
    for k in range(start, end):
        x, e = state.table[k, 2], state.table[k, 3]
        if x < slots:  # spares were filled at once
            if state.content[x] >= 0:
                state.copies[state.content[x]] -= 1
            state.content[x] = e
            state.copies[e] += 1
            state.pending[x] = False
            state.waiting[x // state.slots_per_rank] -= 1
    state.written[:] = False
    for r in range(len(state.waiting)):  # free once its expert has a slot, and its rank has what it wants
        e = state.content[slots + r]
        if e >= 0 and state.copies[e] > 1 and _local_need(state, e, np.int64(-1), r) < 0:
            state.copies[e] -= 1
            state.content[slots + r] = -1


@inlined
def _note_transfer(state, row, number, source, destination, expert):
    state.table[row, 0], state.table[row, 1] = number, source
    state.table[row, 2], state.table[row, 3] = destination, expert


@inlined
def _rank_of(state, slot):
    """Return the rank of a slot or a spare."""
    return slot // state.slots_per_rank if slot < len(state.new) else slot - len(state.new)


@inlined
def _source(state, e, r):
    """Return the slot from which rank ``r`` gets ``e``, nearest first, or -1 if none can give it in this round.

    It may be one of the node that is overwritten in this round, if the spare of its rank is free for what it held; that
    is nearer than another node, but a copy more than from a slot that stays.
    """
    slots = len(state.new)
    for y in range(r * state.slots_per_rank, (r + 1) * state.slots_per_rank):
        if state.content[y] == e and not state.written[y]:
            return y
    if state.content[slots + r] == e:
        return slots + r
    best, best_far, best_sent = -1, 4, np.int64(0)
    for y in range(len(state.content) if state.receives[r] < state.links.max_receives else 0):
        if state.content[y] != e:
            continue
        s = _rank_of(state, y)
        near = s // state.links.ranks_per_node == r // state.links.ranks_per_node
        far = 1 if near else 3
        if y < slots and state.written[y]:
            if not near or state.content[slots + s] >= 0:
                continue
            far = 2
        if state.sends[s] < state.links.max_sends and (
            far < best_far or (far == best_far and state.sent[s] < best_sent)
        ):
            best, best_far, best_sent = y, far, state.sent[s]
    return best


@allocating
def _mark_circles(state, marked):
    """Mark one slot in each circle of slots that wait for each other, where a spare is free.

    Only slots in circles may keep a spare: then a circle that has one needs nothing else to finish, and gives it back.
    """
    slots = len(state.new)
    seen = np.zeros(slots, dtype=np.int64)
    follows = np.full(slots, -1, dtype=np.int64)
    wanted_by = np.full(len(state.copies), -1, dtype=np.int64)
    marked[:] = False
    for z in range(slots - 1, -1, -1):
        if state.pending[z] and not state.written[z]:
            wanted_by[state.new[z]] = z
    for x in range(slots):
        if state.pending[x] and not state.written[x]:
            follows[x] = _waits_for(state, x, wanted_by)
    for first in range(slots):
        x = first
        while x >= 0 and seen[x] == 0:
            seen[x] = first + 1
            x = follows[x]
        if x < 0 or seen[x] != first + 1:
            continue
        end = x
        while True:
            if state.content[slots + x // state.slots_per_rank] < 0:
                marked[x] = True
                break
            x = follows[x]
            if x == end:
                break


@inlined
def _waits_for(state, x, wanted_by):
    """Return the slot that must get what ``x`` holds before ``x`` may be overwritten, or -1 if it may be now."""
    f = state.content[x]
    if f < 0:
        return -1
    z = _local_need(state, f, x, x // state.slots_per_rank)
    if z >= 0 or state.copies[f] - state.going[f] > 1:
        return z
    # Whoever wants the only copy may get it in this round: wait for nobody in particular, but wait.
    return wanted_by[f] if wanted_by[f] >= 0 else x


@inlined
def _local_need(state, e, x, r):
    """Return a slot of rank ``r`` that wants ``e`` when no other slot of the rank than ``x`` holds it, else -1.

    Copies within a rank are free, so what is still wanted on a rank is not overwritten there.
    """
    needs = -1
    for z in range((r + 1) * state.slots_per_rank - 1, r * state.slots_per_rank - 1, -1):
        if z != x and state.content[z] == e and not state.written[z]:
            return -1
        if state.pending[z] and not state.written[z] and state.new[z] == e:
            needs = z
    if x >= 0 and state.content[len(state.new) + r] == e:
        return -1
    return needs


@allocating
def _sort_round(part, slots, slots_per_rank):
    """Order a round: copies into spares, then other copies within a rank, then the rest; otherwise as it was."""
    kept = part.copy()
    at = 0
    for kind in range(3):
        for k in range(len(kept)):
            y, x = kept[k, 1], kept[k, 2]
            s = y // slots_per_rank if y < slots else y - slots
            mine = 0 if x >= slots else (1 if s == x // slots_per_rank else 2)
            if mine == kind:
                for column in range(kept.shape[1]):
                    part[at, column] = kept[k, column]
                at += 1
