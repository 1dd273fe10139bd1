"""One setting on its way through a trace: what is in force in each window, planned from windows before it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from equipoise.forecasting import Forecast, forecast
from equipoise.how import How
from equipoise.kernels.recount.numba import recount
from equipoise.migration.schedule import MigrationSchedule
from equipoise.placement import Placement
from equipoise.problem import Cluster, PlacementProblem
from equipoise.replan.budget import Budget
from equipoise.replan.keep_slots import reorder
from equipoise.replan.match_ranks import match_nodes
from equipoise.replan.remainder import count_kept
from equipoise.replan.replan import next_placement
from equipoise.traces.planners import FIRST_WINDOW, FORECAST_FROM, NONE, ORACLE, Planner, find_planner, how_of
from equipoise.traces.settings import HEEDLESS, Asked, Setting
from equipoise.traces.windows import Block

__all__ = ["Lane", "State", "Taken", "balancedness_of", "key_of", "plan_all"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class State:
    """Where a lane stands between two windows.

    Attributes
    ----------
    held : int32 array, shape (num_layers, num_slots)
    past : tuple of float64 arrays, shape (num_layers, num_logical_experts)
        What the next plan is made from: windows, or their sum so far.
    planned : float
        Mean balancedness of the last plan on what it was made from; 1 before the first.
    """

    held: Ints
    past: tuple[Floats, ...] = ()
    planned: float = 1.0


@dataclass(frozen=True, eq=False)
class Taken:
    """What a lane did in the windows of a block.

    Attributes
    ----------
    tables : int32 array, shape (windows, num_layers, num_slots)
        What was in force in each window.
    transfers : int64 array, shape (windows,)
        Made before the window, over all layers.
    seconds : float64 array, shape (windows,)
        That they took.
    planned : float64 array, shape (windows,)
        Mean balancedness of the plan in force on what it was made from.
    """

    tables: Ints
    transfers: NDArray[np.int64]
    seconds: Floats
    planned: Floats


def key_of(setting: Setting) -> Setting:
    """Return the setting whose lane this one shares: some planners heed neither how often nor how much may move."""
    return replace(setting, every=1, max_transfers=None) if setting.planner in HEEDLESS else setting


class Lane:
    """One setting, planning on one thread; see ``State`` for what it remembers."""

    def __init__(self, setting: Setting, asked: Asked, num_layers: int, num_experts: int) -> None:
        self.setting, self.asked = setting, asked
        self.cluster: Cluster = asked.cluster_of(setting.slots)
        self.planner: Planner = find_planner(setting.planner)
        self.shape = num_layers, num_experts
        strategy = "joint-descent" if setting.planner == FIRST_WINDOW else self.planner.strategy
        self.how: How | None = None if strategy is None else how_of(strategy, asked.seed, 1)
        self.history = asked.history
        if self.planner.forecasts and asked.history is None:
            self.history = FORECAST_FROM
        self.keeps_windows = self.history is not None or self.planner.sees_windows

    def start(self) -> State:
        """Return how it begins: experts in order."""
        layers, experts = self.shape
        return State(Placement.in_order(layers, self.cluster, experts).physical_to_logical)

    def run(self, state: State, block: Block) -> tuple[Taken, State]:
        """Go through the windows of ``block``; return what was done and where that ends."""
        pasts, past = self._pasts(block, state.past)
        placements = self._plan_ahead(pasts)
        windows, held, planned = len(block.loads), state.held, state.planned
        taken = Taken(
            np.empty((windows, *held.shape), np.int32), np.zeros(windows, np.int64), np.zeros(windows), np.ones(windows)
        )
        for window in range(windows):
            seen = pasts.get(window)
            if seen is not None and any(each.any() for each in seen):
                ahead = None if placements is None else placements[window]
                load = forecast(np.stack(seen)) if self.planner.forecasts else _sum(seen)
                table = self._plan(seen, load, held, ahead)
                taken.transfers[window], taken.seconds[window] = self._moved(held, table)
                held = table
                expected = load.expected if isinstance(load, Forecast) else load
                planned = float(balancedness_of(held[None], expected[None], self.cluster.num_ranks)[0].mean())
            taken.tables[window], taken.planned[window] = held, planned
        return taken, State(held, past, planned)

    def _pasts(
        self, block: Block, past: tuple[Floats, ...]
    ) -> tuple[dict[int, tuple[Floats, ...]], tuple[Floats, ...]]:
        """Return what each plan of the block is made from, by window, and what is left for the next block."""
        if self.setting.planner in (NONE, ORACLE):
            return {}, ()
        kept: deque[Floats] = deque(past, maxlen=self.history)
        found = {}
        for window, load in enumerate(block.loads):
            number = block.first + window
            due = number == 1 if self.setting.planner == FIRST_WINDOW else (number - 1) % self.setting.every == 0
            if number and due:
                found[window] = tuple(kept)
                if self.history is None:
                    kept.clear()
            if self.keeps_windows or not kept:
                kept.append(load)
            elif self.setting.planner != FIRST_WINDOW or number == 0:
                kept[0] = kept[0] + load
        return found, tuple(kept)

    def _plan_ahead(self, pasts: dict[int, tuple[Floats, ...]]) -> dict[int, Ints] | None:
        """Return the plans of a block, where they do not depend on what is in force; all at once, as layers of one."""
        if self.how is None or self.setting.max_transfers is not None or self.planner.forecasts or not pasts:
            return None
        loads = np.stack([_sum(seen) for seen in pasts.values()])
        tables = plan_all(loads, self.cluster, self.asked.num_expert_groups, self.how)
        return dict(zip(pasts, tables, strict=True))

    def _plan(self, seen: tuple[Floats, ...], load: Floats | Forecast, held: Ints, ahead: Ints | None) -> Ints:
        """Return the next placement: from windows that were ``seen``, their sum or forecast, and what is in force."""
        if ahead is not None:
            return ahead if self.setting.planner == FIRST_WINDOW else self._renamed(ahead, held)
        groups = self.asked.num_expert_groups
        if self.planner.plans is not None:
            windows = np.stack(seen) if self.planner.sees_windows else np.asarray(load)[None]
            found = self.planner.plans(windows, self.cluster, groups, held)
            return Placement(found, self.cluster.num_ranks, self.shape[1]).physical_to_logical
        assert self.how is not None
        problem = PlacementProblem(load, self.cluster, groups)
        current = Placement(held, self.cluster.num_ranks, self.shape[1])
        budget = Budget(max_transfers=self.setting.max_transfers)
        return next_placement(problem, current, budget, self.how).placement.physical_to_logical

    def _renamed(self, table: Ints, held: Ints) -> Ints:
        """Return a plan made anew with ranks and nodes renamed so that most stays, as ``solve(current=...)`` does."""
        layers, ranks = len(table), self.cluster.num_ranks
        groups = self.asked.num_expert_groups
        whole = groups is not None and self.cluster.num_nodes > 1 and groups % self.cluster.num_nodes == 0
        by_rank = table.reshape(layers, ranks, -1), held.reshape(layers, ranks, -1)
        matched = match_nodes(*by_rank, self.cluster.num_nodes if whole else 1, 1)
        return reorder(matched.reshape(layers, -1), held.copy(), self.cluster.slots_per_rank)

    def _moved(self, held: Ints, table: Ints) -> tuple[int, float]:
        """Return the transfers from one placement to the next, and the seconds that they take."""
        if self.setting.planner == FIRST_WINDOW:
            return 0, 0.0
        layers, ranks = len(table), self.cluster.num_ranks
        kept = count_kept(table.reshape(layers, ranks, -1), held.reshape(layers, ranks, -1))
        transfers = int((table >= 0).sum() - kept.sum())
        if self.asked.bytes_per_expert is None or not transfers:
            return transfers, 0.0
        experts = self.shape[1]
        before, after = Placement(held, ranks, experts), Placement(table, ranks, experts)
        schedule = MigrationSchedule(
            before, after, self.cluster.num_nodes, bytes_per_expert=self.asked.bytes_per_expert, threads=1
        )
        return transfers, schedule.seconds(self.asked.links)


def plan_all(loads: Floats, cluster: Cluster, groups: int | None, how: How) -> Ints:
    """Return a plan for each window of ``loads``, [windows, layers, slots]: layers are planned independently."""
    windows, layers, experts = loads.shape
    problem = PlacementProblem(loads.reshape(windows * layers, experts), cluster, groups)
    return how.find(problem).physical_to_logical.reshape(windows, layers, -1)


def balancedness_of(tables: Ints, loads: Floats, num_ranks: int) -> Floats:
    """Return mean / max rank load of each layer in each window, [windows, layers]; 1 where there is no load."""
    windows, layers, slots = tables.shape
    rank_load, _ = recount(tables.reshape(-1, slots), loads.reshape(windows * layers, -1), num_ranks, 1, 1)
    largest = rank_load.max(axis=1)
    ratio = np.ones(windows * layers)
    np.divide(rank_load.mean(axis=1), largest, out=ratio, where=largest > 0)
    by_layer: Floats = ratio.reshape(windows, layers)
    return by_layer


def _sum(windows: tuple[Floats, ...]) -> Floats:
    total: Floats = windows[0].copy()
    for window in windows[1:]:
        total += window
    return total
