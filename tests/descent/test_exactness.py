"""Joint descent beside an exact solver; ``benchmarks/exactness.py`` does the same to more and larger instances."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equipoise as eq
from equipoise.testing import TINY_SHAPES, brute_force_optimum, random_load

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def exactness(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("ortools")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("exactness")


def test_the_exact_solver_agrees_with_brute_force(exactness: Any) -> None:
    for experts, ranks, slots in TINY_SHAPES[::5]:
        load = np.ceil(random_load(2, experts, np.random.default_rng([experts, ranks, slots])))
        for row in load[load.sum(axis=1) > 0]:
            problem = eq.PlacementProblem(row[None], eq.Cluster(ranks, slots))
            best = brute_force_optimum(problem, allow_duplicates=False)[0]
            if np.isfinite(best):
                assert exactness.optimum(problem, seconds=20) == pytest.approx(best, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.0, 1.3, 2.6])
def test_plans_of_medium_instances_are_close_to_the_proved_optimum(exactness: Any, sigma: float) -> None:
    random = np.random.default_rng([7, int(10 * sigma)])
    for _ in range(3):
        load = np.ceil(random.lognormal(5, sigma, (1, 9)))
        problem = eq.PlacementProblem(load, eq.Cluster(4, 3))
        best = exactness.optimum(problem, seconds=60)
        assert best is not None, "not proved optimal in a minute"
        gaps = exactness.gaps_of(problem, np.array([best]))
        assert gaps["bound below the optimum"][0] >= -1e-12
        assert gaps["joint-descent"][0] >= -1e-12
        assert gaps["joint-descent"][0] <= 0.05
        assert gaps["joint-descent"][0] <= gaps["plain-greedy"][0] + 1e-12
