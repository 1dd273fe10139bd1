"""How balanced the next window will be, by plans for past windows that were made from those before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.metrics import balancedness
from equipoise.placement import Placement
from equipoise.problem import PlacementProblem
from equipoise.robust.fresh import with_errors

__all__ = ["Plans", "outlook"]

MOST_WINDOWS = 16  # that are planned for again
MOST_LAYERS = 4  # of each, in turn: more windows say more than more layers, which change together
RECENT = 24  # errors among which they are, or half of all if that is less: for older ones too little was known

Plans = Callable[[PlacementProblem, NDArray[np.int64]], Placement]


def outlook(problem: PlacementProblem, *plans: Plans) -> dict[str, Any]:
    """Return what a plan records of the forecast that it was made for.

    Parameters
    ----------
    problem : PlacementProblem
        With a forecast.
    plans : callables
        Of a problem of some layers and their numbers, the placement that is made for it: as the plan is made, and
        anything that is no worse. A plan that starts from a placement in force may owe it to the windows that it is
        judged on; so of what is expected of ``plans`` the least is taken.

    Returns
    -------
    dict
        ``num_windows``, ``num_errors``, and with errors ``expected_balancedness``, the mean over ``tested_windows`` and
        up to four layers of each, ``tested_layers`` in all. From a rolling origin: each of these windows is what a plan
        is judged on that was made from the windows before it, with their forecast and the errors known by then.
    """
    forecast = problem.forecast
    assert forecast is not None
    said: dict[str, Any] = {"num_windows": forecast.num_windows, "num_errors": forecast.num_errors}
    tested = _tested(problem)
    if not tested:
        return said
    return {
        **said,
        "expected_balancedness": min(_back_tested(problem, tested, plan) for plan in plans),
        "tested_windows": len(tested),
        "tested_layers": len(set().union(*(layers.tolist() for _, layers in tested))),
    }


def _tested(problem: PlacementProblem) -> list[tuple[int, NDArray[np.int64]]]:
    """Return recent errors by number, evenly spread, and the layers to plan for each."""
    forecast = problem.forecast
    assert forecast is not None
    all_layers = np.flatnonzero(with_errors(problem))
    first = max(forecast.num_errors - RECENT, forecast.num_errors // 2)
    number = min(MOST_WINDOWS, forecast.num_errors - first)
    tested = []
    for turn in range(number if len(all_layers) else 0):
        error = first + (turn + 1) * (forecast.num_errors - first) // number - 1
        each = min(MOST_LAYERS, len(all_layers))
        rows = np.sort((turn + np.arange(each) * len(all_layers) // each) % len(all_layers))
        layers = all_layers[rows][forecast.known[error, all_layers[rows]]]
        if len(layers):
            tested.append((error, layers))
    return tested


def _back_tested(problem: PlacementProblem, tested: list[tuple[int, NDArray[np.int64]]], plan: Plans) -> float:
    """Return the mean balancedness of what ``plan`` makes, on windows that came later."""
    forecast = problem.forecast
    assert forecast is not None
    score, total = 0.0, 0
    for error, layers in tested:
        before = forecast.of_layers(layers).before(error)
        placement = plan(PlacementProblem(before, problem.cluster, problem.num_expert_groups), layers)
        window = forecast.windows[len(forecast.windows) - forecast.num_errors + error, layers]
        for each in balancedness(placement.rank_load(window)).tolist():
            score, total = score + each, total + 1
    return score / total
