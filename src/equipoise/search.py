"""The rows of a problem while joint descent works on them, harder and harder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.backends import Backend
from equipoise.descent import STAGES
from equipoise.fixed_point import replica_weight
from equipoise.hierarchy import NodeRows
from equipoise.kernels.separate.numba import separate_duplicates
from equipoise.placement import Placement
from equipoise.restarts import Settings, pack_items

__all__ = ["Pack", "Search", "busiest_rank", "pack_replicas"]

UNIT_SLOTS = 4096
NOTHING_YET = np.iinfo(np.int64).max
LADDER = {"fast": ("fast",), "balanced": ("balanced",), "thorough": ("balanced", "thorough")}
"""What is tried for each effort, one after the other; the kernel makes "balanced" never worse than "fast"."""

Pack = Callable[[NDArray[np.int64], int], tuple[NDArray[np.int32], NDArray[np.int32]]]
"""Weights int64 [rows, items] and a number of packs, to the pack of each item and its place there."""


def pack_replicas(
    weight: NDArray[np.int64],
    rows: NodeRows,
    physical_to_logical: NDArray[np.int32],
    replica_count: NDArray[np.int32],
    pack: Pack,
) -> NDArray[np.int32]:
    """Return the expert in each slot: the given replicas as ``pack`` puts them on ranks, duplicates moved apart."""
    item = replica_weight(weight, replica_count, physical_to_logical)
    rank, place = pack(item, rows.num_ranks)
    slot = (rank * (rows.num_slots // rows.num_ranks) + place).astype(np.int64)
    held = np.empty_like(physical_to_logical)
    np.put_along_axis(held, slot, physical_to_logical, axis=1)
    separate_duplicates(held, rows.num_ranks, weight)
    return held


def busiest_rank(held: NDArray[np.int32], weight: NDArray[np.int64], num_ranks: int) -> NDArray[np.int64]:
    """Return what the busiest rank of each row carries, in the integers that planning adds."""
    each = replica_weight(weight, Placement(held, num_ranks, weight.shape[1]).replica_count, held)
    busiest: NDArray[np.int64] = each.reshape(len(held), num_ranks, -1).sum(axis=2).max(axis=1)
    return busiest


@dataclass
class Search:
    """The rows of a problem while joint descent works on them, harder and harder.

    ``held`` int32 [rows, slots], the logical expert in each slot; ``busiest`` int64 [rows], what the busiest rank
    carries; ``within`` bool [rows], whether that is proved to be within ``max_gap``, and ``passed`` bool [rows],
    whether to be no more than in the plain greedy plan.
    """

    rows: NodeRows
    floor: NDArray[np.int64]
    max_gap: float
    threads: int | None

    def __post_init__(self) -> None:
        self.slots_per_rank = self.rows.num_slots // self.rows.num_ranks
        rows = len(self.rows.weight)
        self.held = np.empty((rows, self.rows.num_slots), np.int32)
        self.busiest, self.within = np.full(rows, NOTHING_YET), np.zeros(rows, np.bool_)
        self.passed = np.zeros(rows, np.bool_)
        self.stages = dict.fromkeys((*STAGES, "restarts"), 0)

    def run(self, effort: str, chosen: Any = slice(None)) -> None:
        """Plan the chosen rows with ``effort`` and keep what is better; more effort is never worse than less."""
        for level in LADDER[effort]:
            self._run(level, chosen)
            chosen = np.arange(len(self.held))[chosen]
            chosen = chosen[~self.within[chosen]]
            if not len(chosen):
                return

    def _run(self, effort: str, chosen: Any) -> None:
        from equipoise.descent.numba import plan_rows

        weight, names, floor = self.rows.weight[chosen], self.rows.expert[chosen], self.floor[chosen]
        held, busiest, within, passed, counts = plan_rows(
            weight, names, self.rows.num_ranks, self.slots_per_rank, floor, self.max_gap, effort, self.threads
        )
        better = busiest < self.busiest[chosen]
        self.held[np.arange(len(self.held))[chosen][better]] = held.reshape(len(held), -1)[better]
        self.busiest[chosen] = np.minimum(self.busiest[chosen], busiest)
        self.within[chosen] |= within  # what is no busier than something within is within itself
        self.passed[chosen] |= passed
        for stage, number in zip(STAGES, counts.sum(axis=0).tolist(), strict=True):
            self.stages[stage] += number

    def run_in_units(
        self, effort: str, restarts: tuple[int, Backend] | None, until: float | None, stop_after: int | None
    ) -> int:
        """Plan the rows above the target again, some at a time, until a limit is met; return the units done.

        ``restarts``, if given, are tried with this seed and backend as the last unit. ``until`` is a time of
        ``time.monotonic``.
        """
        todo = np.flatnonzero(~self.within)
        size = min(8, max(1, UNIT_SLOTS // self.rows.num_slots))
        units = [partial(self.run, effort, todo[at : at + size]) for at in range(0, len(todo), size)]
        if restarts is not None:
            units.append(partial(self.run_restarts, *restarts))
        for done, work in enumerate(units):
            if done == stop_after or (until is not None and time.monotonic() >= until):
                return done
            work()
        return len(units)

    def run_restarts(self, seed: int, backend: Backend) -> None:
        """Try pruned restarts on the rows above the target, and keep them where they are better."""
        from equipoise.kernels.replication.numba import replicate

        chosen = np.flatnonzero(~self.within)
        if not len(chosen):
            return
        weight = np.ascontiguousarray(self.rows.weight[chosen])
        counts = replicate(weight, self.rows.num_slots, self.rows.num_ranks)

        def pack(items: NDArray[np.int64], packs: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
            return pack_items(items, packs, Settings(), seed, backend, self.threads)

        held = pack_replicas(weight, self.rows, *counts, pack)
        busiest = busiest_rank(held, weight, self.rows.num_ranks)
        better = busiest < self.busiest[chosen]
        self.held[chosen[better]] = self.rows.name(held, chosen)[better]
        self.busiest[chosen[better]] = busiest[better]
        self.stages["restarts"] += int(better.sum())
