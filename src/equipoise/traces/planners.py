"""Planners by name: what a replay sets side by side.

=================  ==========================================================================================
name               what it does
=================  ==========================================================================================
none               experts in order, and again from expert 0 in the redundant slots: what engines start from
first-window       a plan from the first window, loaded before serving goes on, and never another
a strategy         ``equipoise.solve`` by that strategy, from the placement in force
forecast           ``equipoise.solve`` for the ``equipoise.forecast`` from the last 96 windows, or ``history`` of them
an engine's        its own planner, called as the engine calls it; where its package can be imported
oracle             knows the next window: the ceiling, not a planner to be had; what it moves is free
=================  ==========================================================================================

A strategy searches no longer than ``PARAMETERS`` says: a replay makes thousands of plans, and what is left of the last
tenth of a percent in the next window is nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import MissingDependencyError, UnknownNameError, listed, shown
from equipoise.how import How
from equipoise.problem import Cluster
from equipoise.strategies import STRATEGIES
from equipoise.traces.engine_planners import ENGINE_PLANNERS, can_import

__all__ = [
    "DEFAULTS",
    "FIRST_WINDOW",
    "FORECAST_FROM",
    "NONE",
    "ORACLE",
    "Planner",
    "find_planner",
    "how_of",
    "planner_names",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Plans = Callable[[Floats, Cluster, int | None, Ints], Ints]
"""Windows [windows, layers, experts], cluster, groups and the slots in force [layers, slots] to the slots of a plan."""

NONE, FIRST_WINDOW, ORACLE, FORECAST = "none", "first-window", "oracle", "forecast"
FORECAST_FROM = 96  # windows, of which a forecast uses no more
DEFAULTS = (NONE, FIRST_WINDOW, "plain-greedy", "joint-descent", ORACLE)

PARAMETERS: dict[str, dict[str, Any]] = {"joint-descent": {"max_gap": 0.002, "stop_after": 100_000}}
"""What strategies are given instead of their defaults."""


@dataclass(frozen=True)
class Planner:
    """A row.

    Attributes
    ----------
    name : str
    strategy : str or None
        What plans, if it is one of ours.
    plans : callable or None
        What plans, if it is an engine's.
    limited : bool
        Whether it can be told how much may move; one that cannot is replayed without a limit only.
    sees_windows : bool
        Whether it looks at windows one by one, and not at their sum.
    forecasts : bool
        Whether it plans for a forecast from windows, those before its last plan too.
    """

    name: str
    strategy: str | None = None
    plans: Plans | None = None
    limited: bool = True
    sees_windows: bool = False
    forecasts: bool = False


def planner_names() -> list[str]:
    """Return the names of all planners that can run here."""
    engines = [name for name, row in ENGINE_PLANNERS.items() if can_import(row)]
    return [
        NONE,
        FIRST_WINDOW,
        *sorted(STRATEGIES, key=lambda name: name != "plain-greedy"),
        FORECAST,
        *engines,
        ORACLE,
    ]


def find_planner(name: str) -> Planner:
    """Return the row called ``name``.

    Raises
    ------
    UnknownNameError
        If there is none.
    MissingDependencyError
        If it is an engine's, and the engine cannot be imported.
    """
    if name in STRATEGIES:
        return Planner(name, strategy=name)
    if name == FORECAST:
        return Planner(name, strategy="joint-descent", sees_windows=True, forecasts=True)
    if name in (NONE, FIRST_WINDOW, ORACLE):
        return Planner(name)
    row = ENGINE_PLANNERS.get(name)
    if row is None:
        known = [*planner_names(), *(name for name in ENGINE_PLANNERS if not can_import(ENGINE_PLANNERS[name]))]
        raise UnknownNameError(f"planner is {shown(name)}; it must be one of {listed(known, 20)}.")
    if not can_import(row):
        raise MissingDependencyError(f"planner {name} is {row.module}, which cannot be imported. {row.install}")
    return Planner(name, plans=row.load(), limited=False, sees_windows=row.sees_windows)


def how_of(strategy: str, seed: int, threads: int | None) -> How:
    """Return how a replay plans by a strategy."""
    return How.of(strategy, seed=seed, threads=threads, **PARAMETERS.get(strategy, {}))
