"""The rounds of one layer in plain Python: whatever is asked of a round or of a slot is counted anew."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.migration.rounds import Links

__all__ = ["schedule_layers"]


class Move(NamedTuple):
    """A transfer: from a slot or spare to another, and the expert."""

    source: int
    destination: int
    expert: int


def schedule_layers(
    old: NDArray[np.int32],
    new: NDArray[np.int32],
    experts: int,
    links: Links,
    table: NDArray[np.int32],
    length: NDArray[np.int64],
    restore: NDArray[np.bool_],
) -> None:
    """Fill each layer's table and mark what to restore; see the contract of ``equipoise.migration.rounds``."""
    for at, slots in enumerate(zip(old.tolist(), new.tolist(), strict=True)):
        layer = Layer(*slots, links)
        rounds = layer.schedule()
        rows = [(number, *move) for number, moves in enumerate(rounds) for move in moves]
        length[at] = len(rows)
        table[at, : len(rows)] = np.array(rows, dtype=np.int32).reshape(-1, 4)
        restore[at] = layer.lost


class Layer:
    """A layer between its rounds, and the moves of the round that is being filled."""

    def __init__(self, old: list[int], new: list[int], links: Links) -> None:
        self.new, self.links = new, links
        self.slots, self.width = len(old), len(old) // links.ranks
        self.held = old + [-1] * links.ranks  # what slots and then spares hold, before the round; spares at once
        self.lost = [e >= 0 and e != was and e not in old for was, e in zip(old, new, strict=True)]
        self.moves: list[Move] = []
        self.sent = [0] * links.ranks  # by each rank to others, in the rounds before

    def schedule(self) -> list[list[Move]]:
        """Return the moves of each round, in order."""
        rounds = []
        while any(self.pending(x) for x in range(self.slots)):
            self.fill_round()
            rounds.append(sorted(self.moves, key=self.kind))
            self.finish_round()
        return rounds

    # What is asked of slots and ranks, of the layer as it is.

    def rank(self, slot: int) -> int:
        """Return the rank of a slot or a spare."""
        return slot // self.width if slot < self.slots else slot - self.slots

    def spare(self, rank: int) -> int:
        """Return the spare of a rank."""
        return self.slots + rank

    def own(self, rank: int) -> range:
        """Return the slots of a rank."""
        return range(rank * self.width, (rank + 1) * self.width)

    def written(self, slot: int) -> bool:
        """Whether a slot is overwritten in this round."""
        return slot < self.slots and any(move.destination == slot for move in self.moves)

    def read(self, slot: int) -> bool:
        """Whether a slot is read in this round, by another slot."""
        return any(move.source == slot and move.destination < self.slots for move in self.moves)

    def pending(self, slot: int) -> bool:
        """Whether a slot is still to be filled, and not in this round."""
        wants = self.new[slot] >= 0 and self.new[slot] != self.held[slot] and not self.lost[slot]
        return wants and not self.written(slot)

    def stays(self, expert: int) -> int:
        """Return how many slots and spares hold an expert and are not overwritten in this round."""
        return sum(e == expert and not self.written(x) for x, e in enumerate(self.held))

    def crossing(self) -> list[tuple[int, int]]:
        """Return the source and the destination of the round's moves from rank to rank."""
        ends = [(self.rank(move.source), self.rank(move.destination)) for move in self.moves]
        return [(here, there) for here, there in ends if here != there]

    def sends(self, rank: int) -> int:
        """Return what a rank sends to others in this round."""
        return sum(here == rank for here, _ in self.crossing())

    def receives(self, rank: int) -> int:
        """Return what a rank gets from others in this round."""
        return sum(there == rank for _, there in self.crossing())

    # One round.

    def fill_round(self) -> None:
        """Put moves into a round until no more fits: what needs no spare kept, then one slot of each circle."""
        waiting = [sum(self.pending(x) for x in self.own(rank)) for rank in range(self.links.ranks)]
        order = sorted(range(self.links.ranks), key=lambda rank: -waiting[rank])
        slots = [x for rank in order for x in self.own(rank)]
        while True:
            before = len(self.moves)
            for x in slots:
                if self.pending(x):
                    self.fill(x, in_circle=False)
            if len(self.moves) > before:
                continue
            marked = self.circles()
            for x in slots:
                if x in marked:
                    self.fill(x, in_circle=True)
            if len(self.moves) == before:
                return

    def fill(self, x: int, in_circle: bool) -> None:
        """Fill slot ``x`` in this round, if that can be."""
        rank, holds = self.rank(x), self.held[x]
        through_spare = in_circle or self.read(x)  # then what it holds stays in the spare
        if through_spare and self.held[self.spare(rank)] >= 0:
            return
        if holds >= 0 and not in_circle:
            if not self.read(x) and self.stays(holds) < 2:
                return
            if self.needed_here(holds, rank, x) is not None:
                return
        source = self.source(self.new[x], rank)
        if source is None:
            return
        if self.written(source):
            self.stash(source)
            source = self.spare(self.rank(source))
        if through_spare:
            spare = self.spare(rank)
            self.moves = [move._replace(source=spare) if move.source == x else move for move in self.moves]
            self.stash(x)
        self.moves.append(Move(source, x, self.new[x]))

    def stash(self, x: int) -> None:
        """Copy what slot ``x`` held before the round into the spare of its rank."""
        spare = self.spare(self.rank(x))
        self.moves.append(Move(x, spare, self.held[x]))
        self.held[spare] = self.held[x]

    def finish_round(self) -> None:
        """Let slots hold what they got, and free the spares that nobody needs any more."""
        for here, _ in self.crossing():
            self.sent[here] += 1
        for move in self.moves:
            self.held[move.destination] = move.expert
        self.moves = []
        for rank in range(self.links.ranks):
            e = self.held[self.spare(rank)]
            if e >= 0 and self.held.count(e) > 1 and self.needed_here(e, rank) is None:
                self.held[self.spare(rank)] = -1

    def kind(self, move: Move) -> int:
        """Return 0 for a copy into a spare, 1 for another within a rank, 2 for the rest."""
        if move.destination >= self.slots:
            return 0
        return 1 if self.rank(move.source) == self.rank(move.destination) else 2

    # Where an expert comes from, and who waits for it.

    def source(self, expert: int, rank: int) -> int | None:
        """Return the slot or spare from which a rank gets an expert in this round, or None."""
        here: list[int] = [*self.own(rank), self.spare(rank)]
        for y in here:
            if self.held[y] == expert and not self.written(y):
                return y
        if self.receives(rank) >= self.links.max_receives:
            return None
        able: list[tuple[int, int, int]] = []  # how far, what its rank has sent, and the slot
        for y, e in enumerate(self.held):
            sender = self.rank(y)
            if e != expert or self.sends(sender) >= self.links.max_sends:
                continue
            near = sender // self.links.ranks_per_node == rank // self.links.ranks_per_node
            if not self.written(y):
                able.append((1 if near else 3, self.sent[sender] + self.sends(sender), y))
            elif near and self.held[self.spare(sender)] < 0:  # goes by the spare
                able.append((2, self.sent[sender] + self.sends(sender), y))
        return min(able)[2] if able else None

    def needed_here(self, expert: int, rank: int, but: int | None = None) -> int | None:
        """Return the first slot of a rank that wants an expert, if no other slot there than ``but`` holds it."""
        for z in self.own(rank):
            if z != but and self.held[z] == expert and not self.written(z):
                return None
        if but is not None and self.held[self.spare(rank)] == expert:
            return None
        return next((z for z in self.own(rank) if self.pending(z) and self.new[z] == expert), None)

    def circles(self) -> set[int]:
        """Return one slot of each circle of slots that wait for each other: the first whose spare is free."""
        follows = {x: self.waits_for(x) for x in range(self.slots) if self.pending(x)}
        seen: set[int] = set()
        marked = set()
        for first in range(self.slots):
            path: list[int] = []
            x: int | None = first
            while x is not None and x not in seen:
                seen.add(x)
                path.append(x)
                x = follows.get(x)
            if x in path:
                circle = path[path.index(x) :]
                free = [y for y in circle if self.held[self.spare(self.rank(y))] < 0]
                marked.update(free[:1])
        return marked

    def waits_for(self, x: int) -> int | None:
        """Return the slot that must get what ``x`` holds before ``x`` may be overwritten, or None if it may be now."""
        holds = self.held[x]
        if holds < 0:
            return None
        here = self.needed_here(holds, self.rank(x), x)
        if here is not None or self.stays(holds) > 1:
            return here
        wanting = (z for z in range(self.slots) if self.pending(z) and self.new[z] == holds)
        return next(wanting, x)  # whoever wants the only copy, or nobody in particular
