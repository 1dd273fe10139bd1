"""What each budget of transfers would buy, and that a plan within it is worth as much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings

import equipoise as eq
from equipoise.errors import InfeasibleError, InvalidInputError
from equipoise.how import How
from equipoise.replan.budget import Budget
from equipoise.replan.frontier import frontier_and_plan
from replans import drifted, situations, two_ranks, without_descent_to_level


def test_the_frontier_agrees_with_what_a_limit_reaches():
    current, problem = drifted(3)
    curve = eq.frontier(problem, current, bytes_per_expert=1000)
    for k in (0, 4, 16):
        plan = eq.solve(problem, current=current, max_transfers=k)
        assert np.allclose(plan.metrics.balancedness, curve.balancedness[:, k])
    assert 0 < curve.knee < len(curve.transfers)
    assert "<- knee" in curve.summary()


@settings(max_examples=60)
@given(situations())
def test_more_transfers_are_never_worse_and_the_frontier_knows_what_each_budget_reaches(situation):
    problem, current, lost = situation
    assume(len(lost) < problem.cluster.num_ranks <= problem.num_logical_experts)
    try:
        curve = eq.frontier(problem, current, lost_ranks=lost).balancedness
    except InfeasibleError:
        return
    anew = eq.solve(problem, current=current, lost_ranks=lost)
    takes, mean = eq.count_transfers(current, anew, lost), anew.metrics.mean_rank_load
    largest = np.inf
    for k in range(problem.cluster.num_slots + 1):
        known = curve[:, min(k, curve.shape[1] - 1)]
        if np.isnan(known).any():
            continue
        metrics = eq.solve(problem, current=current, lost_ranks=lost, max_transfers=k).metrics
        assert np.allclose(metrics.balancedness, known)
        assert (metrics.max_rank_load <= largest * (1 + 1e-9)).all()
        largest = metrics.max_rank_load
        if 8 * k >= problem.cluster.num_slots:
            asked = np.maximum(anew.metrics.max_rank_load, 1.001 * mean)
            assert ((largest <= asked * (1 + 1e-9)) | (takes > k)).all()


def test_the_frontier_says_what_to_pass():
    current, problem = two_ranks()
    with pytest.raises(InvalidInputError, match="problem is 3; pass a PlacementProblem"):
        eq.frontier(3, current)
    with pytest.raises(InvalidInputError, match="current is a int; pass a Placement, or a Plan"):
        eq.frontier(problem, 3)
    with pytest.raises(InvalidInputError, match="lost_ranks is 3; it must list ranks"):
        eq.frontier(problem, current, lost_ranks=3)


def test_a_frontier_and_the_plan_within_a_limit_plan_anew_once(monkeypatch):
    current, problem = without_descent_to_level()
    curve, plan = eq.frontier(problem, current), eq.solve(problem, current=current, max_transfers=16)
    asked = []
    find = How.find
    monkeypatch.setattr(How, "find", lambda how, problem: asked.append(problem) or find(how, problem))
    both = frontier_and_plan(problem, current, Budget(max_transfers=16), How.of())
    assert len(asked) == 1
    assert both[0].balancedness.tolist() == curve.balancedness.tolist()
    assert both[0].transfers.tolist() == curve.transfers.tolist()
    assert both[1].to_json() == plan.to_json()


@pytest.mark.parametrize("k", [0, 1, 2, 7, 16])
@pytest.mark.parametrize("limit", ["max_transfers", "max_transfers_total"])
def test_the_plan_beside_a_frontier_is_the_one_without(limit, k):
    for current, problem in (without_descent_to_level(), two_ranks()):
        plan = frontier_and_plan(problem, current, Budget(**{limit: k}), How.of())[1]
        assert plan.to_json() == eq.solve(problem, current=current, **{limit: k}).to_json()
