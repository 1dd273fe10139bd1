"""Trying all placements of few slots, held to brute force, which shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import equipoise as eq
from descents import Kernels, layer_of
from equipoise.descent.facts import NEVER, REACHED, TARGET
from equipoise.fixed_point import to_fixed_point
from equipoise.testing import TINY_SHAPES, brute_force_optimum, random_load

SHAPES = [shape for shape in TINY_SHAPES if 1 < shape[2] <= shape[0]]  # a rank cannot be filled with fewer experts


@pytest.mark.parametrize("shape", SHAPES)
def test_trying_all_placements_finds_the_optimum(shape: tuple[int, int, int]) -> None:
    experts, ranks, slots = shape
    load = random_load(24, experts, np.random.default_rng([*shape, 3]))
    weight = to_fixed_point(-np.sort(-load[load.sum(axis=1) > 0], axis=1))
    problem = eq.PlacementProblem(weight.astype(np.float64), eq.Cluster(ranks, slots))
    optimum = brute_force_optimum(problem, allow_duplicates=False)
    for row, best in zip(weight, optimum, strict=True):
        reached, held = tried(row, ranks, slots)
        assert reached == pytest.approx(best, rel=1e-9)
        assert all(len(set(rank)) == slots for rank in held.tolist())
        replicas = np.bincount(held.ravel(), minlength=experts)
        assert (row // replicas)[held].sum(axis=1).max() == reached


def tried(
    load: NDArray[np.int64], ranks: int, slots: int, target: int = 0, reached: int = NEVER, steps: int = 10**7
) -> tuple[int, NDArray[np.int64]]:
    """Return what the best placement reaches after all were tried, and that placement; -1 where none was found."""
    layer = layer_of(load, ranks, slots)
    layer.facts[TARGET], layer.facts[REACHED] = target, reached
    layer.best[:] = -1
    Kernels("exact").search_all(layer, steps)
    return int(layer.facts[REACHED]), layer.best


def test_it_stops_at_the_target_at_the_limit_and_where_nothing_is_better() -> None:
    weight = np.sort(np.random.default_rng(0).integers(1, 1000, 10))[::-1].astype(np.int64) * 2520
    optimum, _ = tried(weight, 4, 4)
    close, _ = tried(weight, 4, 4, target=optimum * 11 // 10)
    assert optimum <= close <= optimum * 11 // 10
    for steps in (1, 100):
        assert optimum <= tried(weight, 4, 4, steps=steps)[0] <= NEVER
    reached, held = tried(weight, 4, 4, reached=optimum)
    assert reached == optimum
    assert (held == -1).all(), "what is as good already is left alone"


@pytest.mark.parametrize("seed", range(4))
def test_plans_of_few_slots_are_optimal(seed: int) -> None:
    load = np.random.default_rng(seed).lognormal(0, 1.5, (24, 5))
    problem = eq.PlacementProblem(load, eq.Cluster(3, 3))
    reached = eq.solve(problem, max_gap=0.0, threads=1).certificate.max_rank_load
    np.testing.assert_allclose(reached, brute_force_optimum(problem, allow_duplicates=False), rtol=1e-9)
