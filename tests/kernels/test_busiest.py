"""The busiest rank of a placement: the native version is held to the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.kernels.busiest import numba, reference


@st.composite
def placements(draw):
    layers, ranks, slots, experts = (draw(st.integers(1, n)) for n in (3, 4, 3, 6))
    cells = st.integers(-1, experts)  # -1 is empty, the last is no expert
    size = layers * ranks * slots
    table = np.array(draw(st.lists(cells, min_size=size, max_size=size)), dtype=np.int32).reshape(layers, -1)
    load = np.array(draw(st.lists(st.integers(0, 99), min_size=layers * experts, max_size=layers * experts)), float)
    return table, load.reshape(layers, experts), ranks


@settings(max_examples=200)
@given(placements())
def test_the_native_version_agrees_with_the_plain_one(case):
    assert np.allclose(numba.busiest(*case), reference.busiest(*case), rtol=1e-12)


@pytest.mark.parametrize("version", [numba, reference])
def test_each_replica_carries_its_share_and_a_table_with_a_flaw_is_infinite(version):
    load = np.array([[4.0, 2.0, 1.0]] * 5)
    table = np.array([[0, 1, 0, 2], [0, 1, 2, -1], [0, 0, 1, 2], [0, 1, 0, 1], [0, 1, 2, 3]], dtype=np.int32)
    assert version.busiest(table, load, 2).tolist() == [4.0, np.inf, np.inf, np.inf, np.inf]
