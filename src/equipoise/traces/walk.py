"""All settings side by side through a trace, block by block; what is whole is kept when the walk is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.rules import Rule, find_rule
from equipoise.kernels.recount.numba import recount
from equipoise.threads import for_each
from equipoise.traces.lanes import Lane, State, Taken, balancedness_of, key_of, plan_all
from equipoise.traces.planners import ORACLE, how_of
from equipoise.traces.score import Realised, realised
from equipoise.traces.settings import Asked, Setting
from equipoise.traces.trace import Trace
from equipoise.traces.windows import Block, blocks_of

__all__ = ["COLUMNS", "Record", "Walk"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

COLUMNS = ("balancedness", "transfers", "seconds", "planned", "realised", "active", "microseconds")
"""What is kept of a lane: a number for each window."""

LEAST_IS_BEST = frozenset(("active", "microseconds"))
BINS = 120  # stretches of the trace in the pictures


@dataclass
class Record:
    """What is kept of one lane.

    Attributes
    ----------
    columns : dict of str to list of float64 arrays
        A number for each window, by the names in ``COLUMNS``, a block at a time.
    by_layer : float64 array, shape (stretches, num_layers)
        Sum of the balancedness of each layer over the scored windows of each stretch.
    worst : tuple
        Balancedness, window, layer and rank loads of the scored layer that was worst.
    """

    columns: dict[str, list[Floats]]
    by_layer: Floats
    worst: tuple[float, int, int, tuple[float, ...]] = (2.0, -1, -1, ())

    def column(self, name: str) -> Floats:
        """Return a number for each window so far."""
        parts = self.columns[name]
        return np.concatenate(parts) if parts else np.zeros(0)


@dataclass
class Walk:
    """The walk: where each lane stands, and what came of it so far.

    ``done`` windows are walked; ``idle`` tells for each of them whether no layer had a token.
    """

    trace: Trace
    asked: Asked
    settings: Sequence[Setting]
    threads: int | None = None
    done: int = 0
    lanes: dict[Setting, Lane] = field(init=False)
    states: dict[Setting, State] = field(init=False)
    records: dict[Setting, Record] = field(init=False)
    idle: list[NDArray[np.bool_]] = field(init=False, default_factory=list)
    last_load: Floats = field(init=False)
    sampling: dict[int, list[Floats]] = field(init=False)

    def __post_init__(self) -> None:
        layers, experts = self.trace.num_layers, self.trace.num_logical_experts
        keys = dict.fromkeys(key_of(setting) for setting in self.settings)
        slots = dict.fromkeys(key.slots for key in keys)
        keys |= dict.fromkeys(Setting(ORACLE, each, 1, None) for each in slots)  # the ceiling is always looked at
        self.lanes = {key: Lane(key, self.asked, layers, experts) for key in keys}
        self.states = {key: lane.start() for key, lane in self.lanes.items()}
        self.records = {
            key: Record({name: [] for name in COLUMNS}, np.zeros((self.num_stretches, layers))) for key in self.lanes
        }
        self.sampling = {each: [] for each in slots}
        self.last_load = np.zeros((layers, experts))

    @property
    def num_windows(self) -> int:
        """Whole windows of the trace."""
        return self.trace.num_steps // self.asked.window

    @property
    def num_stretches(self) -> int:
        """Into how many stretches pictures cut the trace."""
        return max(1, min(BINS, self.num_windows))

    @property
    def rule(self) -> Rule | None:
        """By which tokens go to replicas, if single steps are looked at: where a rule or a time is asked for."""
        if self.asked.dispatch is None and self.asked.latency is None:
            return None
        return find_rule(self.asked.dispatch or "even")

    def run(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Walk on to the end; ``progress`` is called with the windows done and all of them."""
        blocks = blocks_of(self.trace, self.asked.window, self.rule is not None, self.done)
        for block in blocks:
            self._take(block)
            if progress is not None:
                progress(self.done, self.num_windows)

    def _take(self, block: Block) -> None:
        """Take one block; only at its end anything of it is kept, so that an interrupt leaves what is whole."""
        taken: dict[Setting, tuple[Taken, State]] = {}

        def work(key: Setting) -> None:
            """Take one setting on."""
            if key.planner == ORACLE:
                taken[key] = self._look_ahead(key, block), self.states[key]
            else:
                taken[key] = self.lanes[key].run(self.states[key], block)

        for_each(work, self.lanes, self.threads)
        came: dict[Setting, Realised] = {}
        if self.rule is not None:
            tables = {key: done.tables for key, (done, _) in taken.items()}
            came = realised(block, tables, self.rule, self.asked, self.threads)
        scored = np.array([bool(load.any()) for load in block.loads])
        balance = {
            key: balancedness_of(done.tables, block.loads, self.asked.cluster.num_ranks)
            for key, (done, _) in taken.items()
        }
        noise = {
            key.slots: self._sample(block, done.tables) for key, (done, _) in taken.items() if key.planner == ORACLE
        }
        columns = {key: self._columns(taken[key][0], balance[key], came.get(key)) for key in self.lanes}
        for key in self.lanes:
            if key.planner == ORACLE:  # the ceiling: the best that anybody did, layer by layer
                beside = [other for other in self.lanes if other.slots == key.slots]
                balance[key] = np.max([balance[other] for other in beside], axis=0)
                columns[key]["balancedness"] = balance[key].mean(axis=1)
                for name in ("realised", "active", "microseconds"):
                    best = np.min if name in LEAST_IS_BEST else np.max
                    columns[key][name] = best([columns[other][name] for other in beside], axis=0)
        self._keep(block, taken, columns, balance, scored, noise)

    def _look_ahead(self, key: Setting, block: Block) -> Taken:
        """Return plans made from the windows that they serve."""
        how = how_of("joint-descent", self.asked.seed, 1)
        tables = plan_all(block.loads, self.lanes[key].cluster, self.asked.num_expert_groups, how)
        windows = len(tables)
        return Taken(tables, np.zeros(windows, np.int64), np.zeros(windows), np.ones(windows))

    def _sample(self, block: Block, tables: Ints) -> Floats:
        """Return what perfect knowledge of the rates leaves: plans for a window, on another sample of its tokens."""
        drawn = np.empty_like(block.loads)
        for i, load in enumerate(block.loads):
            seed = np.random.SeedSequence([self.asked.seed, 2, block.first + i])
            drawn[i] = np.random.Generator(np.random.PCG64(seed)).poisson(np.minimum(load, 1e15))
        found: Floats = balancedness_of(tables, drawn, self.asked.cluster.num_ranks).mean(axis=1)
        return found

    def _columns(self, taken: Taken, balance: Floats, came: Realised | None) -> dict[str, Floats]:
        nothing = np.full(len(balance), np.nan)
        return {
            "balancedness": balance.mean(axis=1),
            "transfers": taken.transfers.astype(np.float64),
            "seconds": taken.seconds,
            "planned": taken.planned,
            "realised": nothing if came is None else came.balancedness,
            "active": nothing if came is None else came.active,
            "microseconds": nothing if came is None else came.microseconds,
        }

    def _keep(
        self,
        block: Block,
        taken: dict[Setting, tuple[Taken, State]],
        columns: dict[Setting, dict[str, Floats]],
        balance: dict[Setting, Floats],
        scored: NDArray[np.bool_],
        noise: dict[int, Floats],
    ) -> None:
        scored = scored.copy()
        if block.first == 0:
            scored[0] = False  # nothing comes before it
        if scored.any():
            self.last_load = block.loads[np.flatnonzero(scored)[-1]]
        stretch = (block.first + np.arange(len(scored))) * self.num_stretches // self.num_windows
        for key, record in self.records.items():
            self.states[key] = taken[key][1]
            for name in COLUMNS:
                record.columns[name].append(columns[key][name])
            np.add.at(record.by_layer, stretch[scored], balance[key][scored])
            if key.planner != ORACLE:
                self._keep_worst(record, block, taken[key][0].tables, balance[key], scored)
        for slots, values in noise.items():
            self.sampling[slots].append(values)
        self.idle.append(~scored)
        self.done = block.first + len(scored)

    def _keep_worst(
        self, record: Record, block: Block, tables: Ints, balance: Floats, scored: NDArray[np.bool_]
    ) -> None:
        if not scored.any():
            return
        masked = np.where(scored[:, None], balance, 2.0)
        window, layer = (int(i) for i in np.unravel_index(int(masked.argmin()), masked.shape))
        if masked[window, layer] < record.worst[0]:
            ranks = self.asked.cluster.num_ranks
            load, _ = recount(tables[window, layer][None], block.loads[window, layer][None], ranks, 1, 1)
            record.worst = (float(masked[window, layer]), block.first + window, layer, tuple(load[0].tolist()))

    def state(self) -> dict[str, Any]:
        """Return all that going on takes, as plain values; see ``resume``."""
        return {
            "done": self.done,
            "last_load": self.last_load.tolist(),
            "idle": [int(i) for i in np.flatnonzero(np.concatenate(self.idle))] if self.idle else [],
            "sampling": [np.concatenate(parts).tolist() if parts else [] for parts in self.sampling.values()],
            "lanes": [
                {
                    "held": self.states[key].held.tolist(),
                    "past": [window.tolist() for window in self.states[key].past],
                    "planned": self.states[key].planned,
                    "by_layer": record.by_layer.tolist(),
                    "worst": record.worst,
                    "columns": {
                        name: [None if np.isnan(x) else x for x in record.column(name).tolist()] for name in COLUMNS
                    },
                }
                for key, record in self.records.items()
            ],
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was returned; it must come from the same trace and settings."""
        self.done = int(state["done"])
        idle = np.zeros(self.done, np.bool_)
        idle[state["idle"]] = True
        self.idle = [idle]
        self.last_load = np.array(state["last_load"], np.float64)
        for slots, values in zip(self.sampling, state["sampling"], strict=True):
            self.sampling[slots] = [np.array(values)]
        for key, kept in zip(self.lanes, state["lanes"], strict=True):
            past = tuple(np.array(window, np.float64) for window in kept["past"])
            self.states[key] = State(np.array(kept["held"], np.int32), past, float(kept["planned"]))
            columns = {name: [np.array(kept["columns"][name], np.float64)] for name in COLUMNS}
            score, window, layer, loads = kept["worst"]
            worst = (float(score), int(window), int(layer), tuple(loads))
            self.records[key] = Record(columns, np.array(kept["by_layer"], np.float64), worst)
