"""The rows of a problem while joint descent works on them, harder and harder, until the work or the time is spent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.descent import STAGES
from equipoise.fixed_point import replica_weight
from equipoise.hierarchy import NodeRows
from equipoise.kernels.separate.numba import separate_duplicates
from equipoise.placement import Placement

__all__ = ["Pack", "Search", "busiest_rank", "pack_replicas", "stopped_at"]

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
    apart: bool = True,
) -> NDArray[np.int32]:
    """Return the expert in each slot: the given replicas as ``pack`` puts them on ranks, duplicates moved ``apart``."""
    item = replica_weight(weight, replica_count, physical_to_logical)
    rank, place = pack(item, rows.num_ranks)
    slot = (rank * (rows.num_slots // rows.num_ranks) + place).astype(np.int64)
    held = np.empty_like(physical_to_logical)
    np.put_along_axis(held, slot, physical_to_logical, axis=1)
    if apart:
        separate_duplicates(held, rows.num_ranks, weight)
    return held


def busiest_rank(held: NDArray[np.int32], weight: NDArray[np.int64], num_ranks: int) -> NDArray[np.int64]:
    """Return what the busiest rank of each row carries, in the integers that planning adds."""
    each = replica_weight(weight, Placement(held, num_ranks, weight.shape[1]).replica_count, held)
    busiest: NDArray[np.int64] = each.reshape(len(held), num_ranks, -1).sum(axis=2).max(axis=1)
    return busiest


@contextmanager
def stopped_at(until: float | None) -> Iterator[NDArray[np.bool_]]:
    """Give an array of one bool that becomes true at ``until``, a time of ``time.monotonic``, or never for None.

    Native code, which runs without the interpreter's lock, looks at it between two steps.
    """
    stop = np.zeros(1, np.bool_)
    left = None if until is None else until - time.monotonic()
    if left is not None and left <= 0:
        stop[0] = True
    timer = threading.Timer(left, lambda: stop.fill(True)) if left is not None and left > 0 else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield stop
    finally:
        if timer is not None:
            timer.cancel()


@dataclass
class Search:
    """The rows of a problem while joint descent works on them, harder and harder.

    ``held`` int32 [rows, slots], the logical expert in each slot; ``busiest`` int64 [rows], what the busiest rank
    carries; ``within`` bool [rows], whether that is proved to be within ``max_gap``; ``steps`` int64 [rows], the work
    spent so far. ``parts`` rows make one layer, and share the work that it may take.
    """

    rows: NodeRows
    floor: NDArray[np.int64]
    max_gap: float
    threads: int | None
    parts: int = 1
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = len(self.rows.weight)
        self.held = np.empty((rows, self.rows.num_slots), np.int32)
        self.busiest, self.steps = np.full(rows, np.iinfo(np.int64).max), np.zeros(rows, np.int64)
        self.within = np.zeros(rows, np.bool_)
        self.stages = dict.fromkeys(STAGES, 0)

    def run(
        self, effort: str, stop: NDArray[np.bool_], stop_after: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64] | None:
        """Plan all rows with ``effort``, keeping what is better: more effort is never worse than less.

        ``stop_after`` int64 [rows] limits the steps of each row. Returns such a limit that ends the search where
        ``stop``, once it became true, ended this one, or None where it did not have to.
        """
        chosen, ended = np.arange(len(self.held)), stop_after
        for level in LADDER[effort]:
            if len(chosen):
                ended = self._run(level, chosen, stop, ended)
                open_ = ~self.within if ended is None else ~self.within & (self.steps + 1 < ended)
                chosen = np.flatnonzero(open_)
            if stop[0] and len(chosen) and level != LADDER[effort][-1]:
                return np.minimum(self.steps + 1, _no_limit(len(self.held)) if ended is None else ended)
        return ended

    def _run(
        self, effort: str, chosen: NDArray[np.int64], stop: NDArray[np.bool_], ended: NDArray[np.int64] | None
    ) -> NDArray[np.int64] | None:
        """Plan the chosen rows with one effort; return the limit that would end the search where it ended."""
        from equipoise.descent.facts import FIRST_STAGE, MOST, REACHED, STEPS, TARGET, new_facts
        from equipoise.descent.numba import plan_rows

        whole = slice(None) if len(chosen) == len(self.held) else chosen  # a slice is no copy
        weight, names = self.rows.weight[whole], self.rows.expert[whole]
        facts = new_facts(self.floor[whole], effort, self.without)
        facts[:, STEPS] = self.steps[whole] + 2  # so that a search that was stopped at once differs from none
        facts[:, MOST] = facts[:, MOST] // self.parts + facts[:, STEPS]
        if ended is not None:
            facts[:, MOST] = np.minimum(facts[:, MOST], ended[whole])
        allowed = facts[:, MOST].copy()
        slots_per_rank = self.rows.num_slots // self.rows.num_ranks
        held = np.empty((len(weight), self.rows.num_ranks, slots_per_rank), np.int32)
        plan_rows(weight, names, facts, held, self.max_gap, self.threads, stop)
        better = facts[:, REACHED] < self.busiest[whole]
        self.held[chosen[better]] = held.reshape(len(held), -1)[better]
        self.busiest[whole] = np.minimum(self.busiest[whole], facts[:, REACHED])
        self.within[whole] |= facts[:, REACHED] <= facts[:, TARGET]  # no busier than something within: within itself
        self.steps[whole] = facts[:, STEPS]
        for stage, number in zip(STAGES, facts[:, FIRST_STAGE:].sum(axis=0).tolist(), strict=True):
            self.stages[stage] += number
        cut = facts[:, MOST] < allowed
        if cut.any():
            ended = _no_limit(len(self.held)) if ended is None else ended.copy()
            ended[chosen[cut]] = facts[cut, MOST]
        return ended


def _no_limit(rows: int) -> NDArray[np.int64]:
    return np.full(rows, np.iinfo(np.int64).max)
