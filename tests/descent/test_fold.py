"""The first deal: in rounds, the lightest rank the largest replica."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from descents import FOLD, assert_consistent, assert_ties_go_to_the_lowest, layer_of


@st.composite
def layers(draw: st.DrawFn) -> tuple[NDArray[np.int64], int, int]:
    """Draw loads, descending and often equal, of a layer whose ranks need not hold an expert twice."""
    ranks, slots = draw(st.integers(1, 10)), draw(st.integers(1, 6))
    size = draw(st.integers(slots, ranks * slots))
    most = draw(st.sampled_from([1, 4, 2**39]))
    loads = draw(st.lists(st.integers(0, most), min_size=size, max_size=size))
    return np.array(sorted(loads, reverse=True), np.int64), ranks, slots


@settings(max_examples=300)
@given(layers())
def test_all_replicas_are_dealt_in_order_and_no_rank_gets_an_expert_twice(
    case: tuple[NDArray[np.int64], int, int],
) -> None:
    layer = layer_of(*case)
    FOLD.fold(layer)
    assert_consistent(layer)
    assert_ties_go_to_the_lowest(layer.ranks)


@given(layers())
def test_without_spare_slots_each_round_gives_the_lightest_rank_the_largest(
    case: tuple[NDArray[np.int64], int, int],
) -> None:
    weight, ranks, slots = case
    weight = np.resize(weight, ranks * slots)
    weight[::-1].sort()
    held: list[list[int]] = [[] for _ in range(ranks)]
    for start in range(0, ranks * slots, ranks):
        lightest = sorted(range(ranks), key=lambda g: (int(weight[held[g]].sum()), g))
        for i, g in enumerate(lightest):
            held[g].insert(0, start + i)
    layer = layer_of(weight, ranks, slots)
    FOLD.fold(layer)
    assert layer.ranks.expert.tolist() == held
    assert np.ptp(layer.ranks.load) <= weight[0], "no two ranks differ by more than the largest replica"


def test_a_rank_that_would_get_an_expert_again_changes_with_the_nearest_of_the_round() -> None:
    """Two replicas of expert 0 run over the end of the first round, and the lightest rank would get both."""
    layer = layer_of(np.array([10, 9, 8, 1, 1], np.int64) * 1000, 3, 2)
    FOLD.fold(layer)
    assert layer.ranks.replicas.tolist() == [2, 1, 1, 1, 1]
    assert layer.ranks.expert.tolist() == [[4, 1], [0, 2], [3, 0]]
