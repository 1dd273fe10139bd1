"""Plans for what may come: swaps as the plain version makes them, and plain plans where nothing is uncertain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import equipoise as eq
from equipoise.robust import reference
from equipoise.robust.numba import swap
from equipoise.robust.rows import unit_of
from equipoise.robust.scenarios import expected_balancedness, expected_busiest
from equipoise.testing import assert_valid_placement


def instance(seed: int) -> tuple[Any, Any, Any]:
    """Return rows, slots and nodes of one or two small layers; some experts twice on a rank, small rows that tie."""
    rng = np.random.default_rng(seed)
    layers, per_node, nodes, slots, errors = (int(rng.integers(1, high)) for high in (3, 4, 3, 5, 5))
    ranks = per_node * nodes
    experts = int(rng.integers(1, ranks * slots + 1))
    held = np.empty((layers, ranks, slots), dtype=np.int32)
    for layer in held:
        every = [*range(experts), *rng.integers(0, experts, ranks * slots - experts)]
        layer[:] = rng.permutation(every).reshape(ranks, slots)
    rows = rng.integers(0, 9 if rng.random() < 0.4 else 60_000, (layers, 1 + errors, experts))
    rows[:, 1:] -= rows[:, 1:].mean(axis=2, keepdims=True).astype(int)
    return rows.astype(np.int32), held, np.repeat(np.arange(nodes, dtype=np.int32), per_node)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32))
def test_both_versions_make_the_same_swaps(seed: int) -> None:
    rows, held, node = instance(seed)
    plain = held.copy()
    before = [reference.objective_of(*layer) for layer in zip(rows, held, strict=True)]
    objective = swap(rows, held, node)
    assert objective.tolist() == reference.swap(rows, plain, node).tolist()
    assert held.tolist() == plain.tolist()
    assert (objective <= before).all()


@given(st.integers(1, 2**17))
def test_no_layer_is_so_skewed_that_its_squares_overflow(num_ranks: int) -> None:
    most = unit_of(num_ranks) * num_ranks  # all tokens on one expert, and as many somewhere else in every window
    assert most**2 + (2 * most) ** 2 < 2**62
    assert 2 * most < 2**31


def drifting(number: int, layers: int = 3, experts: int = 16) -> Any:
    rng = np.random.default_rng(number)
    return rng.poisson(40 * np.exp(np.cumsum(rng.normal(0, 0.2, (number, layers, experts)), axis=0)))


@pytest.mark.parametrize("windows", [drifting(1), np.stack([drifting(1)[0]] * 9), drifting(3), np.zeros((9, 2, 16))])
def test_without_errors_the_plan_is_the_plain_one_for_the_forecast(windows: Any) -> None:
    cluster, forecast = eq.Cluster(4, 5), eq.forecast(windows)
    plan = eq.solve(eq.PlacementProblem(forecast, cluster))
    plain = eq.solve(eq.PlacementProblem(forecast.expected, cluster))
    assert plan.placement == plain.placement
    assert plan.certificate.lower_bound.tolist() == plain.certificate.lower_bound.tolist()
    if len(windows) != 3:
        assert plan.placement == eq.solve(eq.PlacementProblem(windows.mean(axis=0), cluster)).placement


@pytest.mark.parametrize(("nodes", "groups"), [(1, None), (2, 4)])
def test_a_plan_for_a_forecast_is_whole_and_certified_for_what_is_expected(nodes: int, groups: int | None) -> None:
    forecast = eq.forecast(drifting(30))
    problem = eq.PlacementProblem(forecast, eq.Cluster(4, 5, nodes), groups)
    plan = eq.solve(problem)
    assert_valid_placement(problem, plan.placement)
    busiest = plan.placement.rank_load(forecast.expected).max(axis=1)
    np.testing.assert_allclose(plan.certificate.max_rank_load, busiest)
    assert (plan.certificate.lower_bound <= busiest * (1 + 1e-12)).all()


def test_errors_are_planned_against() -> None:
    forecast = eq.forecast(drifting(60))
    cluster = eq.Cluster(4, 5)
    plan = eq.solve(eq.PlacementProblem(forecast, cluster)).placement
    plain = eq.solve(eq.PlacementProblem(forecast.expected, cluster)).placement
    held, plainly = (p.physical_to_logical.reshape(3, 4, 5) for p in (plan, plain))
    assert (expected_busiest(forecast, held) < expected_busiest(forecast, plainly)).all()
    assert (expected_balancedness(forecast, held) > expected_balancedness(forecast, plainly)).all()


def test_permuted_layers_give_the_permuted_plan() -> None:
    windows = drifting(30, layers=5)
    cluster, order = eq.Cluster(4, 5), [3, 0, 4, 1, 2]
    one = eq.solve(eq.PlacementProblem(eq.forecast(windows), cluster)).placement.physical_to_logical
    other = eq.solve(eq.PlacementProblem(eq.forecast(windows[:, order]), cluster)).placement.physical_to_logical
    assert one[order].tolist() == other.tolist()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads: int) -> None:
    problem = eq.PlacementProblem(eq.forecast(drifting(30, layers=9)), eq.Cluster(4, 5))
    assert eq.solve(problem, threads=threads).placement == eq.solve(problem).placement


def test_what_is_expected_is_the_mean_over_windows_as_they_came() -> None:
    forecast = eq.forecast(drifting(20, layers=2))
    placement = eq.solve(eq.PlacementProblem(forecast, eq.Cluster(4, 5))).placement
    each = (forecast.expected + forecast.errors) / placement.replica_count
    layers = np.arange(2)[:, None]
    carried = each[:, layers, placement.physical_to_logical].reshape(19, 2, 4, 5).sum(axis=3).max(axis=2)
    busiest = carried / forecast.expected.sum(axis=1) * 4
    expected = expected_busiest(forecast, placement.physical_to_logical.reshape(2, 4, 5))
    np.testing.assert_allclose(expected, (forecast.weight * busiest).sum(axis=0), rtol=1e-9)
