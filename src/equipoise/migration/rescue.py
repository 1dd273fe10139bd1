"""When ranks are gone: experts that lie only in spares and buffers get the slots of others' replicas."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from equipoise.migration.peers import Peers
from equipoise.migration.schedule import MigrationSchedule
from equipoise.migration.steps import Held
from equipoise.migration.weights import Rows, Weights, copy_rows, from_bytes, to_bytes

__all__ = ["Rescue", "describe_loss"]

Copies = list[tuple[int, int]]  # rank and expert


class Rescue:
    """The rescue of one layer by the ranks that are left. Every one of them builds it from the same facts.

    Parameters
    ----------
    schedule : MigrationSchedule
    wanted : int64 array, shape (num_slots,)
        What the schedule's target asks for in this layer.
    rank : int
        This one, as the schedule counts.
    rank_of : list of int
        The rank of each process of the group.
    peers : Peers
    weights : Weights
        Turned to this layer.
    own : dict of expert to rows
        What this rank has in buffers, and in no slot or spare.
    name : str
        Of the migration, the same on every rank.
    """

    def __init__(
        self,
        schedule: MigrationSchedule,
        wanted: NDArray[np.int64],
        rank: int,
        rank_of: list[int],
        peers: Peers,
        weights: Weights,
        own: dict[int, Rows],
        name: str,
    ) -> None:
        self._num_slots, self._width, self._num_ranks = schedule.num_slots, schedule.slots_per_rank, schedule.num_ranks
        self._wanted, self._rank, self._rank_of = wanted, rank, rank_of
        self._peers, self._weights, self._own, self._name = peers, weights, own, name

    def run(self, held: Held, layer: int, loose: Copies, alive: set[int], seconds: float) -> tuple[list[int], Copies]:
        """Give slots to experts without one, until none is left or nobody can; return who is lost, and what is left.

        Parameters
        ----------
        held : int64 array, shape (num_layers, slots and spares)
            What they hold. Kept up to date here; lost ranks hold nothing.
        layer : int
            The one that was under way.
        loose : list of (rank, expert)
            Copies in buffers.
        alive : set of int
            The processes that are left. Those that are lost meanwhile are found out.
        seconds : float
            For each attempt.

        Returns
        -------
        lost : list of int
            Ranks.
        stranded : list of (rank, expert)
            Copies that no slot could take: one for each expert.
        """
        process_of = {rank: process for process, rank in enumerate(self._rank_of)}
        attempt = 0
        while True:
            lost = [rank for rank in range(self._num_ranks) if process_of.get(rank) not in alive]
            held[:, self._slots_of(lost)] = -1
            loose = [(rank, expert) for rank, expert in loose if rank not in lost]
            rescues = self._assign(held[layer], loose)
            if not rescues:
                break
            attempt += 1
            key = f"{self._name}/{attempt}"
            reports = self._peers.decide(key, self._make(rescues, key, process_of, seconds / 3), seconds)
            saved = [pair for told in reports.values() for pair in told]
            for slot, expert in saved:
                held[layer, slot] = expert
            if not saved and alive <= set(reports):
                break
            alive &= set(reports)
        return lost, self._stranded(held[layer], loose)

    def _make(
        self, rescues: list[tuple[int, int, int]], key: str, process_of: dict[int, int], seconds: float
    ) -> list[list[int]]:
        """Move experts through the peers' sockets; return each (slot, expert) that this rank saved."""
        for rank, slot, expert in rescues:
            if rank == self._rank and slot // self._width != rank:
                self._peers.tell(f"{key}/{expert}", to_bytes(self._rows(expert)))
        saved = []
        for rank, slot, expert in rescues:
            if slot // self._width != self._rank:
                continue
            rows = self._weights.rows(slot)
            if rank == self._rank:
                copy_rows(self._rows(expert), rows)
            elif not from_bytes(self._peers.ask(process_of[rank], f"{key}/{expert}", seconds) or b"", rows):
                continue
            saved.append([slot, expert])
        return saved

    def _rows(self, expert: int) -> Rows:
        """Return where this rank has a copy of ``expert`` that is in no slot."""
        return self._own[expert] if expert in self._own else self._weights.rows(self._num_slots + self._rank)

    def _slots_of(self, ranks: list[int]) -> NDArray[np.int64]:
        """Return all slots and spares of some ranks."""
        width = self._width
        slots = [r * width + s for r in ranks for s in range(width)] + [self._num_slots + r for r in ranks]
        return np.array(slots, dtype=np.int64)

    def _stranded(self, held: Held, loose: Copies) -> Copies:
        """Return rank and expert of each copy, in a spare or loose, whose expert has no slot: one for each expert."""
        slots = set(held[: self._num_slots].tolist())
        spares = [(rank, int(expert)) for rank, expert in enumerate(held[self._num_slots :]) if expert >= 0]
        first: dict[int, int] = {}
        for rank, expert in spares + loose:
            if expert not in slots:
                first.setdefault(expert, rank)
        return [(rank, expert) for expert, rank in first.items()]

    def _assign(self, held: Held, loose: Copies) -> list[tuple[int, int, int]]:
        """Return (rank, slot, expert): how to give each stranded expert the slot of one that has another.

        A slot of its own rank if there is one, else where its schedule wants it, else the lowest.
        """
        held = held.copy()
        width, found = self._width, []
        alive = {slot // width for slot in np.flatnonzero(held[: self._num_slots] >= 0).tolist()}
        for rank, expert in self._stranded(held, loose):
            slots = held[: self._num_slots].tolist()
            free = [
                slot
                for slot, other in enumerate(slots)
                if (slot // width in alive if other < 0 else slots.count(other) > 1)
            ]
            if free:
                slot = min(free, key=lambda slot: (slot // width != rank, self._wanted[slot] != expert, slot))
                held[slot] = expert
                found.append((rank, slot, expert))
        return found


def describe_loss(lost: list[int], before: Iterable[int], stranded: int, error: Exception) -> str:
    """Return in a sentence who is lost, some of them ``before``, where the others stand and what to do."""
    if lost == list(before):
        who = "no rank is lost, but one came too late, so this migration is over; all ranks"
        group = "the same ranks"
    else:
        who, group = f"ranks {lost} are lost; the others", "the ranks that are left"
    kept = f", and {stranded} experts only in spare buffers" if stranded else ""
    without = f" and lost_ranks={lost}" if lost else ""
    return (
        f"{who} stand where their placement says{kept}. Plan again with a new group of {group}{without}. "
        f"({str(error).splitlines()[0]})"
    )
