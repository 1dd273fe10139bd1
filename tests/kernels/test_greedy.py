"""The plain greedy packing: what pruned restarts make of one restart without noise and refinement."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.kernels.greedy import numba as greedy
from equipoise.restarts import Settings, reference

ALONE = Settings(restarts=1, refined=1, noise=0.0, swaps=0)


@st.composite
def rows(draw):
    packs, room = draw(st.integers(1, 5)), draw(st.integers(2, 4))
    size = packs * room
    weight = st.lists(st.integers(0, draw(st.sampled_from([3, 100, 2**40]))), min_size=size, max_size=size)
    return np.array([draw(weight), draw(weight)], np.int64), packs


@settings(max_examples=200)
@given(rows())
def test_it_is_restart_zero_of_pruned_restarts(case):
    weight, packs = case
    key = np.zeros(len(weight), np.uint64)
    for mine, plain in zip(greedy.pack(weight, packs), reference.pack(weight, packs, ALONE, key), strict=True):
        assert mine.dtype == plain.dtype
        assert np.array_equal(mine, plain)


def test_one_item_a_pack_stays_where_it_is():
    pack_index, rank_in_pack = greedy.pack(np.array([[1, 3, 2]]), 3)
    assert pack_index.tolist() == [[0, 1, 2]]
    assert rank_in_pack.tolist() == [[0, 0, 0]]
