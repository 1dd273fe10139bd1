"""How balanced the next window will be, by plans that have not seen the errors that they are judged on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.placement import Placement
from equipoise.problem import PlacementProblem
from equipoise.robust.fresh import with_errors
from equipoise.robust.scenarios import scenario_busiest

__all__ = ["Plans", "outlook"]

MOST_LAYERS = 8  # that are planned again: the mean over them says enough
BLOCK = 4  # windows in a row are alike, so they are held out together

Plans = Callable[[PlacementProblem, NDArray[np.int64]], Placement]


def outlook(problem: PlacementProblem, *plans: Plans) -> dict[str, Any]:
    """Return what a plan records of the forecast that it was made for.

    Parameters
    ----------
    problem : PlacementProblem
        With a forecast.
    plans : callables
        Of a problem of some layers and their numbers, the placement that is made for it: as the plan is made, and
        anything that is no worse. A plan that starts from a placement in force may owe it to the errors held out; so
        of what is expected of ``plans`` the least is taken.

    Returns
    -------
    dict
        ``num_windows``, ``num_errors``, and with errors ``expected_balancedness``, the mean over ``tested_layers``.
        By two-fold cross-validation: each half of the errors, in blocks of four, is what plans made by the other half
        are judged on, all with the forecast of now.
    """
    forecast = problem.forecast
    assert forecast is not None
    said: dict[str, Any] = {"num_windows": forecast.num_windows, "num_errors": forecast.num_errors}
    layers = np.flatnonzero(with_errors(problem))
    if not len(layers):
        return said
    number = min(MOST_LAYERS, len(layers))
    layers = layers[np.arange(number) * len(layers) // number]
    some = problem.of_layers(layers)
    assert some.forecast is not None
    expected = min(_held_out(some, layers, plan) for plan in plans)
    return {**said, "expected_balancedness": expected, "tested_layers": number}


def _held_out(problem: PlacementProblem, layers: NDArray[np.int64], plan: Plans) -> float:
    """Return the mean balancedness of ``plan`` for some ``layers`` on errors that were held out."""
    forecast = problem.forecast
    assert forecast is not None
    half = np.arange(forecast.num_errors) // BLOCK % 2
    score, total = 0.0, 0.0
    for held_out in range(2):
        seen = PlacementProblem(forecast.without(half == held_out), problem.cluster, problem.num_expert_groups)
        placement = plan(seen, layers)
        slots = placement.physical_to_logical.reshape(len(layers), placement.num_ranks, -1)
        busiest = scenario_busiest(forecast, slots)[1:]
        for error in np.flatnonzero(half == held_out):
            for weight, most in zip(forecast.weight[error].tolist(), busiest[error].tolist(), strict=True):
                score, total = score + weight / max(most, 1.0), total + weight
    return score / total
