from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from equipoise.kernels.separate import reference
from equipoise.kernels.separate.numba import separate_duplicates


@st.composite
def crowded(draw: st.DrawFn) -> tuple[NDArray[np.int32], int, NDArray[np.int64]]:
    """Draw slots in which no expert has more replicas than there are ranks, in any order."""
    ranks, slots = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    held: list[int] = []
    while len(held) < ranks * slots:
        most = min(ranks, ranks * slots - len(held))
        expert = (max(held) + 1) if held else 0
        held += [expert] * draw(st.integers(1, most))
    load = draw(st.lists(st.integers(0, 1 << 40), min_size=max(held) + 1, max_size=max(held) + 1))
    order = draw(st.permutations(held))
    return np.array([order], dtype=np.int32), ranks, np.array([load], dtype=np.int64)


@given(crowded())
def test_no_rank_holds_an_expert_twice_if_no_expert_has_more_replicas_than_ranks(case) -> None:
    held, ranks, load = case
    before = np.bincount(held[0])
    separate_duplicates(held, ranks, load)
    assert all(len(set(rank)) == len(rank) for rank in held.reshape(ranks, -1).tolist())
    assert np.bincount(held[0]).tolist() == before.tolist()


@st.composite
def any_rows(draw: st.DrawFn) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Draw slots [ranks, slots] of any experts, more replicas than ranks among them, and small loads, which tie."""
    ranks, slots, experts = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    size = ranks * slots
    held = draw(st.lists(st.integers(0, experts - 1), min_size=size, max_size=size))
    load = draw(st.lists(st.integers(0, draw(st.sampled_from([3, 2**40]))), min_size=experts, max_size=experts))
    return np.array(held, np.int32).reshape(ranks, slots), np.array(load, np.int64)


@given(any_rows())
@example((np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 3, 3]], np.int32), np.array([0, 0, 0, 1])))
def test_the_native_version_makes_the_same_exchanges_as_the_plain_one(case) -> None:
    native, weight = case
    plain = native.copy()
    separate_duplicates(native.reshape(1, -1), len(native), weight[None])
    reference.separate(plain, weight)
    assert native.tolist() == plain.tolist()


def test_slots_without_duplicates_stay_as_they_are() -> None:
    held = np.array([[0, 1, 2, 0, 1, 3]], dtype=np.int32)
    separate_duplicates(held, 2, np.ones((1, 4), dtype=np.int64))
    assert held.tolist() == [[0, 1, 2, 0, 1, 3]]


def test_an_expert_with_more_replicas_than_ranks_stays_on_all_of_them() -> None:
    held = np.array([[0, 0, 0, 1]], dtype=np.int32)
    separate_duplicates(held, 2, np.array([[9, 1]], dtype=np.int64))
    assert sorted(held[0].tolist()) == [0, 0, 0, 1]
    assert all(0 in rank for rank in held.reshape(2, 2).tolist())


def test_of_the_exchanges_that_help_the_one_that_levels_best_is_made() -> None:
    # Rank 0 holds expert 0 twice; of ranks 1 and 2, which lack it, rank 2 is lighter.
    held = np.array([[0, 0, 1, 2, 3, 4]], dtype=np.int32)
    separate_duplicates(held, 3, np.array([[8, 6, 6, 1, 1]], dtype=np.int64))
    assert held.reshape(3, 2).tolist()[2].count(0) == 1
