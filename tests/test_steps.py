"""What a placement for the sum of steps is worth in each of them."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import InvalidInputError
from equipoise.metrics import balancedness
from equipoise.steps import Steps, realised_balancedness

STEPS = np.random.default_rng(0).integers(0, 50, (7, 3, 8)).astype(np.float64)
STEPS[2, 1] = 0


def test_the_balance_of_each_step_is_that_of_its_own_load() -> None:
    placement = eq.solve(eq.PlacementProblem(STEPS, eq.Cluster(4, 3)), "plain-greedy").placement
    expected = [balancedness(placement.rank_load(step)) for step in STEPS]
    assert np.allclose(realised_balancedness(placement, STEPS), expected, rtol=1e-12)


def test_ranks_that_hold_nothing_do_not_count() -> None:
    placement = eq.Placement([[0, 1, 0, 1, -1, -1]], 3, 2)
    assert realised_balancedness(placement, [[[3, 1]], [[1, 1]]]).tolist() == [[1.0], [1.0]]


def test_a_plan_of_several_steps_says_how_many_and_what_is_realised() -> None:
    plan = eq.solve(eq.PlacementProblem(STEPS, eq.Cluster(4, 3)), "plain-greedy")
    assert plan.steps is not None
    assert plan.steps.number == 7
    assert plan.steps.mean_balancedness < plan.metrics.mean_balancedness
    assert f"7 steps summed; realised step by step: mean {plan.steps.mean_balancedness:.4f}" in plan.summary()
    assert eq.Plan.from_json(plan.to_json()).steps == plan.steps


def test_a_plan_of_one_step_says_nothing_of_steps() -> None:
    for load in (STEPS[0], STEPS[:1]):
        plan = eq.solve(eq.PlacementProblem(load, eq.Cluster(4, 3)), "plain-greedy")
        assert plan.steps is None
        assert "step" not in plan.summary()


def test_slots_say_what_is_realised_with_each_number_of_them() -> None:
    capacity = eq.slots_for(eq.PlacementProblem(STEPS, eq.Cluster(4, 2)), 0.9, most_slots=16, strategy="plain-greedy")
    for point in capacity.points:
        assert point.steps is not None
        assert point.steps.mean_balancedness <= point.mean_balancedness


@pytest.mark.parametrize(("number", "mean"), [(1, 0.5), (2, 0.0), (2, 1.5), (2, float("nan")), ("x", 0.5), (2, None)])
def test_steps_hold_a_number_and_a_balancedness(number: object, mean: object) -> None:
    with pytest.raises(InvalidInputError):
        Steps(number, mean)  # type: ignore[arg-type]


def test_a_load_of_another_model_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="the placement is for 1 layers of 2 experts"):
        realised_balancedness(eq.Placement([[0, 1]], 2, 2), STEPS)


def test_slots_of_a_layer_given_as_those_of_a_rank_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    eq.PlacementProblem(np.ones((2, 256)), eq.Cluster(num_ranks=32, slots_per_rank=288))
    assert "if a layer has 288 slots in all, those are 9 a rank: Cluster.from_slots(32, 288)" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        eq.PlacementProblem(np.ones((2, 256)), eq.Cluster(num_ranks=32, slots_per_rank=9))
        eq.PlacementProblem(np.ones((2, 4)), eq.Cluster(num_ranks=2, slots_per_rank=4))
    assert not caplog.records
