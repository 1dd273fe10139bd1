from __future__ import annotations

import numpy as np
import pytest

from equipoise import Cluster, Placement, PlacementProblem
from equipoise.certificate import check_placement
from equipoise.errors import InvalidPlacementError
from equipoise.testing import assert_valid_placement, random_problems
from quick import NAMES, solve

PROBLEM = PlacementProblem([[4.0, 2.0, 1.0, 1.0]], Cluster(2, 3))


def refuse(slots: list[list[int]], says: str, problem: PlacementProblem = PROBLEM, **rules: bool) -> None:
    placement = Placement(slots, problem.cluster.num_ranks, problem.num_logical_experts)
    with pytest.raises(InvalidPlacementError, match=says):
        check_placement(problem, placement, **rules)


def test_rank_loads_are_recounted_from_the_slots() -> None:
    placement = Placement([[0, 1, 2, 0, 1, 3]], 2, 4)
    assert check_placement(PROBLEM, placement).tolist() == [[4.0, 4.0]]


def test_the_checker_and_the_placement_agree_on_rank_loads() -> None:
    for problem in random_problems(30, seed=1):
        placement = solve(problem, "plain-greedy").placement
        np.testing.assert_allclose(check_placement(problem, placement), placement.rank_load(problem.load))


def test_an_expert_without_a_slot_is_found() -> None:
    refuse([[0, 1, 2, 0, 1, 2]], "layer 0 has no slot for expert 3")


def test_an_empty_slot_is_found() -> None:
    refuse([[0, 1, 2, 3, -1, 0]], "layer 0, slot 4 is empty")


def test_a_duplicate_is_found_when_it_is_not_allowed() -> None:
    refuse([[0, 0, 2, 1, 1, 3]], "layer 0, rank 0 holds expert 0 2 times", allow_duplicates=False)
    check_placement(PROBLEM, Placement([[0, 0, 2, 1, 1, 3]], 2, 4))


@pytest.mark.parametrize(
    "placement",
    [
        Placement([[0, 1, 2, 3]], 2, 4),
        Placement([[0, 1, 2, 3, 0, 1]], 3, 4),
        Placement([[0, 1, 2, 3, 0, 1]] * 2, 2, 4),
        Placement([[0, 1, 2, 3, 0, 1]], 2, 5),
    ],
)
def test_a_placement_of_another_shape_is_refused(placement: Placement) -> None:
    with pytest.raises(InvalidPlacementError, match="the problem has 1 layers of 6 slots on 2 ranks"):
        check_placement(PROBLEM, placement)


def test_a_group_on_two_nodes_is_found() -> None:
    problem = PlacementProblem(np.ones((1, 4)), Cluster(2, 2, num_nodes=2), num_expert_groups=2)
    refuse([[0, 2, 1, 3]], "layer 0 has group 0 on nodes 0 and 1", problem)
    check_placement(problem, Placement([[2, 3, 0, 1]], 2, 4))


def test_nodes_with_unequal_numbers_of_groups_are_found() -> None:
    problem = PlacementProblem(np.ones((1, 4)), Cluster(2, 3, num_nodes=2), num_expert_groups=4)
    refuse([[0, 1, 2, 3, 3, 3]], r"layer 0 has \[3, 1\] expert groups", problem)


@pytest.mark.parametrize("strategy", NAMES)
def test_every_plan_of_a_thousand_random_layers_is_valid_and_free_of_avoidable_duplicates(strategy: str) -> None:
    for problem in random_problems(150, seed=7):
        assert_valid_placement(problem, solve(problem, strategy).placement)


def test_the_public_check_raises_assertion_errors() -> None:
    with pytest.raises(AssertionError, match="no slot for expert 3"):
        assert_valid_placement(PROBLEM, Placement([[0, 1, 2, 0, 1, 2]], 2, 4))
    with pytest.raises(AssertionError, match="already holds the same expert"):
        assert_valid_placement(PROBLEM, Placement([[0, 0, 2, 1, 1, 3]], 2, 4))


def test_slots_may_be_empty_only_where_that_is_allowed() -> None:
    placement = Placement([[0, 1, -1, 2, 3, -1]], 2, 4)
    with pytest.raises(InvalidPlacementError, match="layer 0, slot 2 is empty"):
        check_placement(PROBLEM, placement)
    assert check_placement(PROBLEM, placement, allow_empty=True, allow_duplicates=False).tolist() == [[6.0, 2.0]]
    with pytest.raises(InvalidPlacementError, match="no slot for expert 3"):
        check_placement(PROBLEM, Placement([[0, 1, -1, 2, 0, -1]], 2, 4), allow_empty=True)
