"""Parameters that make each strategy quick enough to be run thousands of times."""

from __future__ import annotations

from typing import Any

import equipoise as eq
from equipoise.strategies import STRATEGIES

QUICK: dict[str, dict[str, Any]] = {"pruned-restarts": {"restarts": 48, "refined": 8}}
NAMES = tuple(STRATEGIES)


def solve(problem: eq.PlacementProblem, strategy: str = "pruned-restarts", **arguments: Any) -> eq.Plan:
    """Plan with few restarts and on one thread, unless ``arguments`` say otherwise."""
    return eq.solve(problem, strategy, **{"threads": 1, **QUICK.get(strategy, {}), **arguments})
