from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise import Cluster, Placement
from equipoise.errors import IndivisibleError, InvalidPlacementError


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    ranks, slots, experts = (draw(st.integers(1, 4)) for _ in range(3))
    layers = draw(st.integers(1, 3))
    row = st.lists(st.integers(-1, experts - 1), min_size=ranks * slots, max_size=ranks * slots)
    return Placement(draw(st.lists(row, min_size=layers, max_size=layers)), ranks, experts)


@given(placements())
def test_the_derived_maps_say_what_the_slots_say(placement: Placement) -> None:
    for layer, row in enumerate(placement.physical_to_logical.tolist()):
        for expert in range(placement.num_logical_experts):
            slots = [slot for slot, held in enumerate(row) if held == expert]
            padded = placement.logical_to_physical[layer, expert].tolist()
            assert placement.replica_count[layer, expert] == len(slots)
            assert padded == slots + [-1] * (len(padded) - len(slots))


@given(placements())
def test_duplicates_are_slots_beyond_the_first_of_an_expert_on_a_rank(placement: Placement) -> None:
    for layer, row in enumerate(placement.physical_to_logical.reshape(placement.num_layers, placement.num_ranks, -1)):
        expected = sum(len(held) - len(set(held)) for held in ([e for e in rank if e >= 0] for rank in row.tolist()))
        assert placement.num_duplicates[layer] == expected


@given(placements(), st.integers(0, 2**32 - 1))
def test_rank_loads_add_up_to_the_load_of_the_experts_that_have_a_slot(placement: Placement, seed: int) -> None:
    load = np.random.default_rng(seed).random((placement.num_layers, placement.num_logical_experts))
    rank_load = placement.rank_load(load)
    assert rank_load.shape == (placement.num_layers, placement.num_ranks)
    placed = (load * (placement.replica_count > 0)).sum(axis=1)
    np.testing.assert_allclose(rank_load.sum(axis=1), placed, atol=1e-12)


def test_an_empty_slot_carries_nothing() -> None:
    placement = Placement([[0, -1, 1, 0]], num_ranks=2, num_logical_experts=2)
    assert placement.rank_load([[4.0, 3.0]]).tolist() == [[2.0, 5.0]]


def test_two_placements_of_the_same_slots_are_equal() -> None:
    one, same, other = (Placement([row], 2, 3) for row in ([0, 1, 2, 0], [0, 1, 2, 0], [0, 1, 2, 1]))
    assert one == same
    assert one != other
    assert one != Placement([[0, 1, 2, 0]], 4, 3)
    assert one != "a placement"


def test_a_placement_keeps_its_own_read_only_copy() -> None:
    slots = np.array([[0, 1]])
    placement = Placement(slots, 1, 2)
    slots[0, 0] = 1
    assert placement.physical_to_logical.tolist() == [[0, 1]]
    assert placement.physical_to_logical.dtype == np.int32
    assert not placement.physical_to_logical.flags.writeable


@pytest.mark.parametrize(
    ("slots", "ranks", "experts", "says"),
    [
        ([[0, 3]], 1, 3, "is 3 at layer 0, slot 1"),
        ([[0, 1], [-2, 0]], 1, 3, "is -2 at layer 1, slot 0"),
        ([0, 1], 1, 2, "in the shape"),
        ([[0.0, 1.0]], 1, 2, "must hold integers"),
        (np.zeros((0, 4), int), 2, 2, "in the shape"),
        ([[2**40, 0]], 1, 2, "at layer 0, slot 0"),
    ],
)
def test_slots_that_hold_no_expert_id_are_refused_with_the_place(slots, ranks, experts, says) -> None:
    with pytest.raises(InvalidPlacementError, match=says):
        Placement(slots, ranks, experts)


def test_ranks_must_divide_the_slots() -> None:
    with pytest.raises(IndivisibleError, match="3 slots do not spread evenly over 2 ranks"):
        Placement([[0, 1, 2]], 2, 3)


def test_the_load_of_another_model_is_refused() -> None:
    with pytest.raises(InvalidPlacementError, match="the load of the same model"):
        Placement([[0, 1]], 1, 2).rank_load([[1.0, 2.0, 3.0]])


def test_engines_start_with_experts_in_order_and_again_from_the_first() -> None:
    placement = Placement.in_order(2, Cluster(num_ranks=3, slots_per_rank=2), 4)
    assert placement.physical_to_logical.tolist() == [[0, 1, 2, 3, 0, 1]] * 2
