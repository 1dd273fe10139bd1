"""equipoise decides where the experts of a Mixture-of-Experts model live, and proves how good that is.

    import equipoise as eq

    problem = eq.PlacementProblem(load, eq.Cluster(num_ranks=32, slots_per_rank=9))
    plan = eq.solve(problem)
    print(plan.summary())

Names are imported when first used: importing this package imports neither torch nor numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equipoise.advice import SlotTimes as SlotTimes
    from equipoise.advice import slot_times as slot_times
    from equipoise.capacity import Capacity as Capacity
    from equipoise.capacity import slots_for as slots_for
    from equipoise.certificate import Certificate as Certificate
    from equipoise.dispatch.best import share as share
    from equipoise.dispatch.connected import flexibility as flexibility
    from equipoise.dispatch.shares import Shares as Shares
    from equipoise.eplb import rebalance_experts as rebalance_experts
    from equipoise.errors import EquipoiseError as EquipoiseError
    from equipoise.forecasting import Forecast as Forecast
    from equipoise.forecasting import forecast as forecast
    from equipoise.latency import LatencyModel as LatencyModel
    from equipoise.load import LoadStatistics as LoadStatistics
    from equipoise.load import generate_load as generate_load
    from equipoise.load import read_load as read_load
    from equipoise.metrics import Metrics as Metrics
    from equipoise.migration.schedule import LinkSpeeds as LinkSpeeds
    from equipoise.migration.schedule import MigrationSchedule as MigrationSchedule
    from equipoise.placement import Placement as Placement
    from equipoise.plan import Plan as Plan
    from equipoise.problem import Cluster as Cluster
    from equipoise.problem import PlacementProblem as PlacementProblem
    from equipoise.replan import count_transfers as count_transfers
    from equipoise.replan.frontier import Frontier as Frontier
    from equipoise.replan.frontier import frontier as frontier
    from equipoise.replan.refresh import refresh as refresh
    from equipoise.solver import solve as solve
    from equipoise.timing import TimeCertificate as TimeCertificate
    from equipoise.traces.replay import replay as replay
    from equipoise.traces.result import Replay as Replay
    from equipoise.traces.trace import Trace as Trace

__version__ = "0.1.0"

_ROOMS = {
    "Capacity": "capacity",
    "Certificate": "certificate",
    "Cluster": "problem",
    "EquipoiseError": "errors",
    "Forecast": "forecasting",
    "Frontier": "replan.frontier",
    "LatencyModel": "latency",
    "LinkSpeeds": "migration.schedule",
    "LoadStatistics": "load",
    "Metrics": "metrics",
    "MigrationSchedule": "migration.schedule",
    "Placement": "placement",
    "PlacementProblem": "problem",
    "Plan": "plan",
    "Replay": "traces.result",
    "Shares": "dispatch.shares",
    "SlotTimes": "advice",
    "TimeCertificate": "timing",
    "Trace": "traces.trace",
    "count_transfers": "replan",
    "flexibility": "dispatch.connected",
    "forecast": "forecasting",
    "frontier": "replan.frontier",
    "generate_load": "load",
    "read_load": "load",
    "rebalance_experts": "eplb",
    "refresh": "replan.refresh",
    "replay": "traces.replay",
    "share": "dispatch.best",
    "slot_times": "advice",
    "slots_for": "capacity",
    "solve": "solver",
}

__all__ = sorted(_ROOMS)


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'equipoise' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"equipoise.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
