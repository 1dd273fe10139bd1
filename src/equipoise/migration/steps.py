"""What slots and spares hold as the rounds of a schedule pass: known to every rank, without asking."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.migration.schedule import MigrationSchedule

__all__ = ["Held", "Move", "Steps"]

Held = NDArray[np.int64]


class Move:
    """One transfer, with the ranks that it concerns."""

    def __init__(self, schedule: MigrationSchedule, source: int, destination: int, expert: int) -> None:
        self.source, self.destination, self.expert = source, destination, expert
        self.from_rank, self.to_rank = (_rank_of(slot, schedule) for slot in (source, destination))
        self.into_spare = destination >= schedule.num_slots


def _rank_of(slot: int, schedule: MigrationSchedule) -> int:
    return slot // schedule.slots_per_rank if slot < schedule.num_slots else slot - schedule.num_slots


class Steps:
    """The rounds of a schedule.

    Attributes
    ----------
    start, end : int64 array, shape (num_layers, slots and spares)
        What they hold before the first round and after the last, without what has to be restored.
    wanted : int64 array, shape (num_layers, num_slots)
        What the target asks for, -1 for nothing.
    """

    def __init__(self, schedule: MigrationSchedule) -> None:
        self._schedule = schedule
        self._slots, self._ranks = schedule.num_slots, schedule.num_ranks
        current = schedule.current
        own = current.physical_to_logical.reshape(current.num_layers, current.num_ranks, -1)
        wide = np.full((current.num_layers, schedule.num_ranks, schedule.slots_per_rank), -1, dtype=np.int64)
        wide[:, : current.num_ranks, : current.slots_per_rank] = own
        wide[:, list(schedule.lost_ranks)] = -1
        target = schedule.target
        asked = np.full_like(wide, -1)
        own = target.physical_to_logical.reshape(target.num_layers, target.num_ranks, -1)
        asked[:, : target.num_ranks, : target.slots_per_rank] = own
        self.wanted = asked.reshape(len(wide), -1)
        spares = np.full((len(wide), self._ranks), -1, dtype=np.int64)
        self.start: Held = np.concatenate([wide.reshape(len(wide), -1), spares], axis=1)
        self.end: Held = np.concatenate([self.wanted, spares], axis=1)
        for layer, slot, _ in schedule.restores.tolist():
            self.end[layer, slot] = -1
        self._first = np.searchsorted(schedule.layer, np.arange(schedule.num_layers + 1))

    def next(self, layer: int, number: int) -> list[int]:
        """Return the layer and round after this one: that of the next layer that has any, at the end of a layer."""
        number += 1
        while layer < self._schedule.num_layers and number >= self._schedule.num_rounds[layer]:
            layer, number = layer + 1, 0
        return [layer, number]

    def of(self, layer: int, number: int) -> list[Move]:
        """Return the transfers of one round."""
        schedule = self._schedule
        if layer == schedule.num_layers:
            return []
        part = slice(self._first[layer], self._first[layer + 1])
        at = np.flatnonzero(schedule.round[part] == number) + self._first[layer]
        columns = (schedule.source[at].tolist(), schedule.destination[at].tolist(), schedule.expert[at].tolist())
        return [Move(schedule, *row) for row in zip(*columns, strict=True)]

    def after(self, held: Held, moves: list[Move], layer: int, number: int) -> Held:
        """Return what slots and spares hold after a round. A spare is free once no later round reads it."""
        held = held.copy()
        for move in moves:
            held[move.destination] = move.expert
        part = slice(self._first[layer], self._first[layer + 1])
        rounds, schedule = self._schedule.round[part], self._schedule
        for rank in np.flatnonzero(held[self._slots :] >= 0):
            spare = self._slots + rank
            later = rounds > number
            reads = rounds[(schedule.source[part] == spare) & later]
            stashes = rounds[(schedule.destination[part] == spare) & later]
            if not len(reads) or (len(stashes) and stashes.min() <= reads.min()):
                held[spare] = -1
        return held

    def is_servable(self, held: Held) -> bool:
        """Whether every expert in a spare has a slot too."""
        spares = held[self._slots :]
        return bool(np.isin(spares[spares >= 0], held[: self._slots]).all())
