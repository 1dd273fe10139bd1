"""The maps of a placement: the native version is held to the plain one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.kernels.maps import numba, reference


@st.composite
def tables(draw):
    layers, ranks, slots, experts = (draw(st.integers(1, n)) for n in (3, 4, 3, 6))
    size = layers * ranks * slots
    cells = draw(st.lists(st.integers(-1, experts - 1), min_size=size, max_size=size))
    return np.array(cells, dtype=np.int32).reshape(layers, -1), experts, ranks


@settings(max_examples=200)
@given(tables())
def test_the_native_version_agrees_with_the_plain_one(case):
    table, experts, ranks = case
    for mine, plain in zip(numba.invert(table, experts), reference.invert(table, experts), strict=True):
        assert mine.dtype == plain.dtype
        assert np.array_equal(mine, plain)
    assert np.array_equal(
        numba.count_duplicates(table, experts, ranks), reference.count_duplicates(table, experts, ranks)
    )


def test_slots_of_an_expert_ascend_and_the_rest_is_padded():
    slots, counts = reference.invert(np.array([[1, 0, 1, -1]], np.int32), 3)
    assert slots.tolist() == [[[1, -1], [0, 2], [-1, -1]]]
    assert counts.tolist() == [[1, 2, 0]]


def test_an_expert_that_a_rank_holds_three_times_is_two_duplicates():
    assert reference.count_duplicates(np.array([[0, 0, 0, 0, 1, 2]], np.int32), 3, 2).tolist() == [2]
