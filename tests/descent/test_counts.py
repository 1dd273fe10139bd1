"""Replica counts: which are best, and how other ones spend the slots that a larger replica frees."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from descents import COUNTS, layer_of
from equipoise.descent.tuning import SPREAD_COLDEST, SPREAD_FITTING, SPREAD_HALVES, SPREAD_LARGEST

HOTTEST = 2**39


@st.composite
def weights(draw: st.DrawFn) -> tuple[NDArray[np.int64], int, int]:
    """Draw loads of a layer, descending, with ties and zeros among them, and ranks and slots for them."""
    ranks, slots = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    size = draw(st.integers(min(slots, ranks * slots), ranks * slots))  # no fewer, so that all slots can be filled
    most = draw(st.sampled_from([1, 3, 1000, HOTTEST]))
    loads = draw(st.lists(st.integers(0, most), min_size=size, max_size=size))
    return np.array(sorted(loads, reverse=True), np.int64), ranks, slots


def counted(weight: NDArray[np.int64], ranks: int, slots: int) -> tuple[int, list[int]]:
    replicas = np.empty(len(weight), np.int64)
    largest = int(COUNTS.count_least_largest(weight, ranks * slots, ranks, replicas))
    return largest, replicas.tolist()


@settings(max_examples=300)
@given(weights())
def test_the_best_counts_are_those_of_slots_given_out_one_by_one_to_the_largest_replica(
    case: tuple[NDArray[np.int64], int, int],
) -> None:
    weight, ranks, slots = case
    largest, replicas = counted(*case)
    if weight[0] == 0:
        assert max(replicas) - min(replicas) <= 1
    else:
        expected = [1] * len(weight)
        for _ in range(ranks * slots - len(weight)):
            takers = [e for e in range(len(weight)) if expected[e] < ranks]
            expected[max(takers, key=lambda e: (Fraction(int(weight[e]), expected[e]), -e))] += 1
        assert replicas == expected
    assert sum(replicas) == ranks * slots
    assert largest == max(-(-int(load) // count) for load, count in zip(weight, replicas, strict=True))


@settings(max_examples=200)
@given(weights())
def test_no_other_counts_have_a_smaller_largest_replica(case: tuple[NDArray[np.int64], int, int]) -> None:
    weight, ranks, slots = case
    _, replicas = counted(*case)
    largest = max(Fraction(int(load), count) for load, count in zip(weight, replicas, strict=True))
    if largest > 0:
        needed = [int(int(load) / largest) + 1 for load in weight]  # slots that would make all of them smaller
        assert max(needed) > ranks or sum(needed) > ranks * slots


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_where_all_experts_are_on_every_rank_the_rest_goes_to_the_first(slots: int) -> None:
    experts = max(slots - 1, 1)
    _, replicas = counted(np.arange(experts, 0, -1).astype(np.int64) * 1000, 4, slots)
    assert replicas == [4 * slots - 4 * (experts - 1)] + [4] * (experts - 1)


def relaxed(
    load: NDArray[np.int64], ranks: int, slots: int, largest: float, rule: int, target: int = 10**9
) -> list[int]:
    layer = layer_of(load, ranks, slots)
    COUNTS.count_relaxed(layer, largest, target, rule)
    replicas: list[int] = layer.ranks.replicas.tolist()
    return replicas


@pytest.mark.parametrize("rule", [SPREAD_LARGEST, SPREAD_HALVES, SPREAD_COLDEST, SPREAD_FITTING])
@given(case=weights(), slack=st.floats(0, 2))
def test_other_counts_fill_the_slots_and_keep_every_replica_as_small_as_was_asked(
    rule: int, case: tuple[NDArray[np.int64], int, int], slack: float
) -> None:
    weight, ranks, slots = case
    least, _ = counted(*case)
    if least == 0:
        return
    asked = least * (1 + slack)
    replicas = relaxed(weight, ranks, slots, asked, rule)
    assert sum(replicas) == ranks * slots
    assert min(replicas) >= 1
    assert max(replicas) <= ranks
    assert all(load / count <= asked * (1 + 1e-12) for load, count in zip(weight, replicas, strict=True))


# Eight experts in six ranks of two slots, the largest replica allowed to be 60: two slots for the first, one for each
# other, and three that are left.
LOAD = np.array([100, 50, 40, 30, 25, 20, 15, 10], np.int64) * 1000
LEFT = {
    "to the largest with one": (SPREAD_LARGEST, 10**9, [2, 2, 2, 2, 1, 1, 1, 1]),
    "to the coldest": (SPREAD_COLDEST, 10**9, [2, 1, 1, 1, 1, 2, 2, 2]),
    "where replicas shrink most": (SPREAD_HALVES, 10**9, [3, 2, 2, 1, 1, 1, 1, 1]),
    "to halves that fit beside the largest": (SPREAD_FITTING, 65_000, [2, 1, 1, 2, 2, 2, 1, 1]),
    "to the largest replicas where too few fit": (SPREAD_FITTING, 57_000, [3, 2, 1, 1, 1, 1, 1, 2]),
}


@pytest.mark.parametrize("case", LEFT.values(), ids=LEFT.keys())
def test_slots_that_are_left_go(case: tuple[int, int, list[int]]) -> None:
    rule, target, expected = case
    assert relaxed(LOAD, 6, 2, 60_000.0, rule, target) == expected
