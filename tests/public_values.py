"""What public calls are given: values that fit, and what callers pass in their stead by mistake or on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import equipoise as eq
from equipoise import (
    online,
)
from equipoise.engines import layered, settings
from equipoise.how import How
from equipoise.load import LoadStatistics
from equipoise.strategies import STRATEGIES

LOAD = np.array([[8.0, 2.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
WHOLE = LOAD.astype(np.int64)
CLUSTER = eq.Cluster(2, 3)
PROBLEM = eq.PlacementProblem(LOAD, CLUSTER)
PLAN = eq.solve(PROBLEM, "plain-greedy")
HERE = PLAN.placement
EVEN = eq.Shares.even(HERE)
THERE = eq.Placement([[3, 2, 1, 0, 0, 1]] * 2, 2, 4)
SCHEDULE = eq.MigrationSchedule(HERE, THERE)
RANKS = HERE.rank_load(LOAD)
LAYER = np.array([1.0, 2.0])
OUTLOOK = online.Outlook(0.5, 0.9, 100.0, 60.0, 3, 0.1, 0.01)
HOW = How.of("plain-greedy", threads=1)
GREEDY = settings.Settings(strategy="plain-greedy", threads=1)
LAYERED = layered.LayeredPlacement.of(HERE)
STATISTICS = LoadStatistics(LOAD)
MODEL = eq.LatencyModel(20, 12, 4, 0.06)
TIMED = eq.PlacementProblem(LOAD, CLUSTER, latency=MODEL, routed_per_step=(8, 400))
IN_TIME = eq.solve(TIMED, "plain-greedy")
TIMES = eq.slot_times(PROBLEM, MODEL, [4, 200], 1, strategy="plain-greedy")
WINDOWS = np.stack([LOAD, LOAD[:, ::-1], LOAD, LOAD + 1, LOAD[:, ::-1], 2 * LOAD])
FORECAST = eq.forecast(WINDOWS)
CAPACITY = eq.slots_for(PROBLEM, 0.9, strategy="plain-greedy")
TRACE = eq.Trace([LOAD] * 3)
REPLAYED = eq.replay(TRACE, CLUSTER, planners=["none"], threads=1)
PLANNED: dict[str, Any] = {"problem": PROBLEM, "strategy": "plain-greedy", "threads": 1}

TIME_FIELDS = ("latency", "routed_per_step", "shares", "max_rank_time", "lower_bound")
SLOT_FIELDS = ("num_slots", "num_redundant_experts", "active", "everything", "extra_bytes")

AVERAGE, WINDOW = online.ExponentialAverage(), online.SlidingSum()
BALANCER = online.Balancer(HERE, CLUSTER, check_every=10**6)
WHERE = {"placement": HERE, "cluster": CLUSTER}
FOUND = {
    "strategy": STRATEGIES["plain-greedy"](), "seed": 0, "implementation": "numba", "stages": {}, "digest": "0"
}  # fmt: skip
TOLD = {
    "strategy": "x", "parameters": {}, "seed": 0, "implementation": "numba", "stages": {}, "problem_digest": "0",
    "version": "0",
}  # fmt: skip
PARTS = {name: getattr(PLAN, name) for name in ("cluster", "placement", "certificate", "metrics", "provenance")}
ROWS = {"mean_rank_load": LAYER, "max_rank_load": LAYER, "num_duplicates": np.array([0, 0])}
PRESET: dict[str, Any] = {
    "name": "x", "num_layers": 2, "num_logical_experts": 16, "experts_per_token": 2, "sigma": (0.5, 0.6),
    "hottest_to_mean": 5.0, "group_size": 4,
}  # fmt: skip


def odd() -> list[Any]:
    """Return what fits nowhere, or only in some places: of wrong kinds, too large, too small, empty, or no number."""
    nan, inf = float("nan"), float("inf")
    return [
        None, True, False, 0, -1, 1, 3, 1.5, -0.5, nan, inf, -inf, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400,
        "x", "", "0", "a\0b", "\ud800", b"x", [], [1, 2], [[1, 2], [3]], [nan], [None], (1,), {}, {"x": 1}, {1, 2},
        object(), int, len, iter([0]), range(3), 1j, np.float64(nan), np.int64(2), np.bool_(True), np.array(0),
        np.array(2), np.array([1, 2]), np.array([[1, 2]]), np.array([["x", "y"]]), np.array([{}, None]),
        np.array([[nan, 1.0]]), np.array([[-1.0, 2.0]]), np.array([[2.0**1000, inf]]), np.empty((0, 4)),
        np.zeros((2, 2, 2)), np.zeros((1, 1, 1, 1)), np.full((2, 6), 2**63, np.uint64), np.full((2, 6), -5),
        np.array([[1j]]), np.array(["2020-01-01"], "M8[D]"), np.ma.masked_array([[1.0, 2.0]], [[True, False]]),
        np.broadcast_to(np.zeros(1), (10**6, 10**6)), np.zeros((2, 4)), np.zeros((2, 6), np.int64),
        torch.ones(2, 4), torch.tensor(3), torch.tensor([1, 2]), torch.zeros(1).expand(10**6, 10**6),
        torch.ones(2, 2).to_sparse(), torch.ones(2, 4, dtype=torch.complex64), torch.empty(2, 4, device="meta"),
        torch.ones(2, 4, requires_grad=True), [torch.ones(4), torch.ones(4)],
        LOAD, CLUSTER, PROBLEM, PLAN, HERE, SCHEDULE, PLAN.certificate, eq.Cluster, Hostile(),
    ]  # fmt: skip


class Hostile:
    """Raises whatever it is asked to be."""

    def _raise(self, *_: Any) -> Any:
        raise RuntimeError

    __repr__ = __index__ = __float__ = __len__ = __iter__ = __eq__ = __bool__ = _raise  # type: ignore[assignment]
    __hash__ = object.__hash__
