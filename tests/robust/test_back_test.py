"""What is expected of the next window is what plans for past windows were worth, made from those before them."""

from __future__ import annotations

from typing import Any

import numpy as np

import equipoise as eq
from equipoise.metrics import balancedness
from equipoise.robust.back_test import outlook


def windows_of(number: int, layers: int = 2) -> Any:
    rng = np.random.default_rng(number)
    return rng.poisson(40 * np.exp(np.cumsum(rng.normal(0, 0.2, (number, layers, 16)), axis=0)))


def test_each_window_is_planned_for_from_those_before_it() -> None:
    windows, cluster = windows_of(20), eq.Cluster(4, 5)
    seen, expected = [], []

    def plan(problem: eq.PlacementProblem, layers: Any) -> eq.Placement:
        assert problem.forecast is not None
        known = problem.forecast.num_windows
        whole = eq.forecast(windows[:known]).of_layers(layers)
        np.testing.assert_allclose(problem.load, whole.expected)
        np.testing.assert_allclose(problem.forecast.errors, whole.errors, atol=1e-9)
        placement = eq.solve(eq.PlacementProblem(windows[known, layers], cluster)).placement
        seen.append(known)
        expected.append(balancedness(placement.rank_load(windows[known, layers])).mean())
        return placement

    said = outlook(eq.PlacementProblem(eq.forecast(windows), cluster), plan)
    assert seen == list(range(10, 20))
    np.testing.assert_allclose(said["expected_balancedness"], np.mean(expected), rtol=1e-12)
    assert (said["tested_windows"], said["tested_layers"]) == (10, 2)


def test_what_is_expected_is_the_least_of_all_ways_to_plan() -> None:
    problem = eq.PlacementProblem(eq.forecast(windows_of(30, layers=9)), eq.Cluster(4, 5))
    ways = [
        lambda some, layers: eq.solve(eq.PlacementProblem(some.load, some.cluster)).placement,
        lambda some, layers: eq.Placement.in_order(some.num_layers, some.cluster, some.num_logical_experts),
    ]
    each = [outlook(problem, way)["expected_balancedness"] for way in ways]
    both = outlook(problem, *ways)
    assert both["expected_balancedness"] == min(each) < max(each)
    assert both["tested_layers"] == 9


def test_without_errors_nothing_is_expected() -> None:
    problem = eq.PlacementProblem(eq.forecast(windows_of(3)), eq.Cluster(4, 5))
    assert outlook(problem) == {"num_windows": 3, "num_errors": 2}
