from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import InvalidInputError, UnknownNameError
from equipoise.testing import TINY_SHAPES, brute_force_optimum, random_load, random_problems

SKEWED = eq.PlacementProblem([[6.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0]], eq.Cluster(2, 2))


def test_points_begin_with_the_fewest_slots_and_leave_none_out() -> None:
    capacity = eq.slots_for(SKEWED, 0.99)
    assert [point.num_slots for point in capacity.points] == [4, 6, 8]
    assert [point.num_redundant_experts for point in capacity.points] == [0, 2, 4]


def test_the_slots_of_the_problem_itself_do_not_matter() -> None:
    more = eq.PlacementProblem(SKEWED.load, eq.Cluster(2, 4))
    assert eq.slots_for(more, 0.99).mean == eq.slots_for(SKEWED, 0.99).mean


def test_the_mean_and_every_layer_are_answered_apart() -> None:
    capacity = eq.slots_for(SKEWED, 0.8)
    # With two slots each the first layer has 8 on its busiest rank for a mean of 6, the second is level.
    assert capacity.points[0].balancedness.tolist() == [0.75, 1.0]
    assert (capacity.mean.found, capacity.worst.found) == (4, 6)
    assert capacity.worst.impossible == (4,)


def test_every_rank_with_every_expert_is_perfect() -> None:
    capacity = eq.slots_for(eq.PlacementProblem([[3.0, 2.0, 1.0]], eq.Cluster(2, 2)), 1.0)
    assert capacity.points[-1].cluster.slots_per_rank <= 3
    assert capacity.worst.found is not None


@pytest.mark.parametrize("shape", [shape for shape in TINY_SHAPES if shape[1] in (2, 3) and shape[2] in (2, 3)])
def test_what_is_found_and_what_is_ruled_out_agrees_with_brute_force(shape: tuple[int, int, int]) -> None:
    experts, ranks, _ = shape
    load = random_load(8, experts, np.random.default_rng(0))
    for row in load:
        problem = eq.PlacementProblem(row[None], eq.Cluster(ranks, -(-experts // ranks)))
        capacity = eq.slots_for(problem, 0.97, most_slots=9)
        for point in capacity.points:
            if point.num_slots > 9:
                break
            optimum = brute_force_optimum(eq.PlacementProblem(row[None], point.cluster))
            best = 1.0 if row.sum() == 0 else row.sum() / ranks / optimum[0]
            assert point.mean_balancedness <= best * (1 + 1e-12)
            assert best <= point.mean_limit * (1 + 1e-12)
            if point.num_slots in capacity.mean.impossible:
                assert best < 0.97
            if point.num_slots == capacity.mean.found:
                assert best >= 0.97 * (1 - 1e-12)


def test_no_number_of_slots_exceeds_what_expert_groups_allow() -> None:
    load = np.array([[8.0, 8.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    capacity = eq.slots_for(eq.PlacementProblem(load, eq.Cluster(4, 2, num_nodes=2), num_expert_groups=4), 0.9)
    assert capacity.ceiling.tolist() == [11 / 18]  # the first group and the lightest other: 18 of 22 on one node
    assert capacity.mean.never
    assert capacity.mean.found is None
    assert len(capacity.mean.impossible) == len(capacity.points) == 3


def test_limits_hold_on_random_problems() -> None:
    for problem in random_problems(30, seed=8):
        capacity = eq.slots_for(problem, 0.95, threads=1)
        for point in capacity.points:
            assert (point.balancedness <= point.limit).all()
            assert (point.limit <= 1).all()
            assert point.limit.mean() <= capacity.ceiling.mean() * (1 + 1e-9)


def test_a_load_without_tokens_needs_no_redundant_experts() -> None:
    assert eq.slots_for(eq.PlacementProblem(np.zeros((2, 6)), eq.Cluster(3, 2)), 1.0).worst.found == 6


def test_the_same_arguments_give_the_same_curve_on_any_number_of_threads() -> None:
    problem = eq.PlacementProblem(random_load(8, 16, np.random.default_rng(1)), eq.Cluster(8, 2))
    one, four = (eq.slots_for(problem, 0.99, threads=threads) for threads in (1, 4))
    assert [p.balancedness.tolist() for p in one.points] == [p.balancedness.tolist() for p in four.points]
    assert one.mean == four.mean


@pytest.mark.parametrize("target", [0, -0.5, 1.0001, float("nan"), float("inf"), "high", None, True])
def test_a_target_that_is_no_balancedness_is_refused(target: object) -> None:
    with pytest.raises(InvalidInputError, match=r"balancedness is .*above 0 and at most 1"):
        eq.slots_for(SKEWED, target)  # type: ignore[arg-type]


def test_most_slots_ends_the_curve_and_must_hold_every_expert() -> None:
    problem = eq.PlacementProblem(random_load(3, 16, np.random.default_rng(2)), eq.Cluster(4, 4))
    assert [point.num_slots for point in eq.slots_for(problem, 1.0, most_slots=23).points] == [16, 20]
    with pytest.raises(InvalidInputError, match="most_slots is 15, and 16 logical experts on 4 ranks need at least 16"):
        eq.slots_for(problem, most_slots=15)


def test_wrong_names_are_refused_before_planning() -> None:
    with pytest.raises(UnknownNameError, match="strategy is 'magic'"):
        eq.slots_for(SKEWED, strategy="magic")
    with pytest.raises(InvalidInputError, match="pass a PlacementProblem"):
        eq.slots_for([[1.0]])  # type: ignore[arg-type]
