from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import FileFormatError, InvalidInputError

PLACEMENT = eq.Placement([[0, 1, 0, 2], [0, 1, 2, -1]], num_ranks=2, num_logical_experts=3)
VALUES = [[0.25, 1, 0.75, 1], [1, 1, 1, 0]]
PROBLEM = eq.PlacementProblem([[8, 2, 1, 1], [1, 2, 3, 4]], eq.Cluster(2, 3))
PLAN = eq.solve(PROBLEM, "plain-greedy")


def with_shares() -> eq.Plan:
    return dataclasses.replace(PLAN, shares=eq.Shares.even(PLAN.placement))


def test_shares_are_an_array_that_nobody_writes_to() -> None:
    shares = eq.Shares(VALUES, PLACEMENT)
    array = np.asarray(shares)
    assert array.dtype == np.float64
    assert array.tolist() == VALUES
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    assert np.array(shares).flags.writeable


def test_rank_loads_follow_the_shares() -> None:
    assert eq.Shares(VALUES, PLACEMENT).rank_load([[4, 2, 1], [5, 6, 7]]).tolist() == [[3, 4], [11, 7]]


def test_even_shares_are_the_rank_loads_of_the_placement() -> None:
    load = [[4.0, 2.0, 1.0], [5.0, 6.0, 7.0]]
    assert eq.Shares.even(PLACEMENT).rank_load(load).tolist() == PLACEMENT.rank_load(load).tolist()


def test_a_slot_without_tokens_is_dormant_and_an_empty_one_is_not() -> None:
    assert eq.Shares([[0, 1, 1, 1], [1, 1, 1, 0]], PLACEMENT).num_dormant.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([[0.25, 1, 0.75, 1]], "one number for each of 2 layers of 4 slots"),
        ([[0.25, 1, 0.7, 1], [1, 1, 1, 0]], "expert 0 in layer 0 sum to 0.95"),
        ([[-0.25, 1, 1.25, 1], [1, 1, 1, 0]], "is -0.25 at layer 0, slot 0"),
        ([[np.nan, 1, 1.25, 1], [1, 1, 1, 0]], "is nan at layer 0, slot 0"),
        ([[0.25, 1, 0.75, 1], [1, 1, 1, 1]], "is 1.0 at layer 1, slot 3; an empty slot gets none"),
    ],
)
def test_shares_that_are_none_are_refused(values: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        eq.Shares(values, PLACEMENT)


def test_an_expert_without_a_slot_has_no_shares() -> None:
    lost = eq.Placement([[0, -1]], num_ranks=2, num_logical_experts=2)
    assert eq.Shares.even(lost).values.tolist() == [[1, 0]]


def test_a_plan_with_shares_is_a_file_of_version_2_that_comes_back_whole() -> None:
    plan = with_shares()
    assert json.loads(plan.to_json())["version"] == 2
    back = eq.Plan.from_json(plan.to_json())
    assert back.shares == plan.shares
    assert back.to_json() == plan.to_json()


def test_a_plan_without_shares_is_the_file_that_older_versions_read() -> None:
    assert json.loads(PLAN.to_json())["version"] == 1
    assert eq.Plan.from_json(PLAN.to_json()).shares is None


def test_shares_of_another_placement_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="shares are of another placement"):
        dataclasses.replace(PLAN, shares=eq.Shares(VALUES, PLACEMENT))


@pytest.mark.parametrize("shares", [None, [[1.0]], [[True] * 6] * 2, [[1.0] * 6] * 2, [["x"] * 6] * 2, [[0.1], [1, 2]]])
def test_a_forged_file_whose_shares_are_none_is_refused(shares: Any) -> None:
    document = {**json.loads(with_shares().to_json()), "shares": shares}
    with pytest.raises(FileFormatError):
        eq.Plan.from_json(json.dumps(document))


def test_plans_of_consecutive_layers_are_joined_with_their_shares() -> None:
    joined = eq.Plan.joined([PLAN, with_shares()], "0")
    assert joined.shares == eq.Shares.even(joined.placement)
    assert eq.Plan.joined([PLAN, PLAN], "0").shares is None
