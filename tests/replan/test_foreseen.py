"""Re-planning for what may come: strict budgets, never worse for a larger one, and plain where nothing is uncertain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import InfeasibleError
from equipoise.how import How
from equipoise.replan.foreseen import Ahead, Budget, InForce
from equipoise.robust.numba import objectives
from equipoise.robust.rows import rows_of
from equipoise.testing import assert_valid_placement


def drifting(number: int, layers: int = 3, experts: int = 16, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.poisson(40 * np.exp(np.cumsum(rng.normal(0, 0.2, (number, layers, experts)), axis=0)))


def objective_of(problem: eq.PlacementProblem, plan: eq.Plan) -> Any:
    assert problem.forecast is not None
    ranks = problem.cluster.num_ranks
    held = plan.placement.physical_to_logical.reshape(problem.num_layers, ranks, -1)
    return objectives(rows_of(problem.forecast, ranks), held)


@pytest.fixture(params=[(1, None), (2, 4)], ids=["global", "hierarchical"])
def problem(request: pytest.FixtureRequest) -> eq.PlacementProblem:
    nodes, groups = request.param
    return eq.PlacementProblem(eq.forecast(drifting(60)), eq.Cluster(4, 6, nodes), groups)


def in_force(problem: eq.PlacementProblem) -> eq.Placement:
    then = eq.PlacementProblem(drifting(60)[30], problem.cluster, problem.num_expert_groups)
    return eq.solve(then).placement


def test_budgets_are_strict_and_a_larger_one_is_never_worse(problem: eq.PlacementProblem) -> None:
    current, before = in_force(problem), np.full(problem.num_layers, np.iinfo(np.int64).max)
    for limit in [*range(1, 12), 16, 24]:
        try:
            plan = eq.solve(problem, current=current, max_transfers=limit)
        except InfeasibleError:
            assert problem.is_hierarchical
            continue
        assert (eq.count_transfers(current, plan) <= limit).all()
        if not (plan.placement.physical_to_logical < 0).any():
            assert_valid_placement(problem, plan.placement)
        after = objective_of(problem, plan)
        assert (after <= before).all()
        before = after


def test_a_limit_on_all_layers_is_kept_to_and_pays_where_it_gains_most(problem: eq.PlacementProblem) -> None:
    current = in_force(problem)
    plan = eq.solve(problem, current=current, max_transfers_total=7)
    assert eq.count_transfers(current, plan).sum() <= 7
    none = eq.solve(problem, current=current, max_transfers_total=1)
    assert objective_of(problem, plan).sum() < objective_of(problem, none).sum()


def test_no_transfer_changes_nothing() -> None:
    problem = eq.PlacementProblem(eq.forecast(drifting(60)), eq.Cluster(4, 6))
    current = in_force(problem)
    assert eq.solve(problem, current=current, max_transfers=0).placement == current


def test_without_a_limit_steps_end_where_none_is_worth_its_transfers(problem: eq.PlacementProblem) -> None:
    current = in_force(problem)
    plan, fresh = eq.solve(problem, current=current), eq.solve(problem)
    moved = eq.count_transfers(current, plan).sum()
    assert moved <= problem.num_layers * problem.cluster.num_slots
    again = eq.solve(problem, current=plan)
    assert eq.count_transfers(plan, again).sum() <= moved
    assert (objective_of(problem, plan) <= 1.2 * objective_of(problem, fresh)).all()


@pytest.mark.parametrize("windows", [drifting(1), np.stack([drifting(1)[0]] * 9), drifting(3)])
@pytest.mark.parametrize("budget", [{}, {"max_transfers": 3}, {"max_transfers_total": 5}])
def test_without_errors_the_next_plan_is_the_plain_one(windows: Any, budget: dict[str, int]) -> None:
    forecast, cluster = eq.forecast(windows), eq.Cluster(4, 6)
    current = eq.solve(eq.PlacementProblem(drifting(30)[29], cluster)).placement
    one = eq.solve(eq.PlacementProblem(forecast, cluster), current=current, **budget)
    assert (
        one.placement == eq.solve(eq.PlacementProblem(forecast.expected, cluster), current=current, **budget).placement
    )


@pytest.mark.parametrize("limit", [2, 6, None])
def test_lost_ranks_stay_empty_and_every_expert_has_a_slot(limit: int | None) -> None:
    problem = eq.PlacementProblem(eq.forecast(drifting(60)), eq.Cluster(4, 6))
    current = in_force(problem)
    held = current.physical_to_logical.reshape(3, 4, 6)
    needed = max(len(set(range(16)) - set(layer[[0, 1, 3]].ravel().tolist())) for layer in held)
    limit = None if limit is None else limit + needed
    plan = eq.solve(problem, current=current, lost_ranks=[2], max_transfers=limit)
    table = plan.placement.physical_to_logical.reshape(3, 4, 6)
    assert (table[:, 2] == -1).all()
    assert (plan.placement.replica_count > 0).all()
    if limit is not None:
        assert (eq.count_transfers(current, plan, lost_ranks=[2]) <= limit).all()


def test_a_layer_stays_where_the_next_windows_are_not_expected_to_gain_enough() -> None:
    problem = eq.PlacementProblem(eq.forecast(drifting(60)), eq.Cluster(4, 6))
    current = in_force(problem)
    assert eq.solve(problem, current=current, max_transfers=8, min_gain=0.9).placement == current
    some = eq.solve(problem, current=current, max_transfers=8, max_layers=1)
    assert (eq.count_transfers(current, some) > 0).sum() == 1


def test_the_frontier_says_what_each_limit_buys(problem: eq.PlacementProblem) -> None:
    current = eq.solve(problem).placement
    later = eq.PlacementProblem(eq.forecast(drifting(70)), problem.cluster, problem.num_expert_groups)
    curve = eq.frontier(later, current)
    for limit in {0, 1, len(curve.transfers) // 2, len(curve.transfers) - 1}:
        plan = eq.solve(later, current=current, max_transfers=limit)
        assert eq.count_transfers(current, plan).sum() == curve.transfers[limit]
    assert (curve.balancedness > 0).all()


def test_a_plan_made_anew_is_taken_only_where_its_excess_is_a_tenth_less() -> None:
    problem = eq.PlacementProblem(eq.forecast(drifting(60)), eq.Cluster(4, 6))
    ahead = Ahead(InForce.of(problem, in_force(problem)), Budget(), How.of())
    _, curve, _, _ = ahead.descend(24)
    ahead.look_anew(curve)
    if ahead.anew is not None:
        for layer, transfers, reached in zip(ahead.anew.layers, ahead.anew.transfers, ahead.reached, strict=True):
            level = ahead.level[layer]
            assert reached - level <= 0.9 * (curve[layer, max(transfers, ahead.anew_from)] - level)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads: int) -> None:
    problem = eq.PlacementProblem(eq.forecast(drifting(40, layers=7)), eq.Cluster(4, 6))
    current = eq.Placement.in_order(7, problem.cluster, 16)
    one = eq.solve(problem, current=current, max_transfers=5, threads=threads)
    assert one.placement == eq.solve(problem, current=current, max_transfers=5).placement
