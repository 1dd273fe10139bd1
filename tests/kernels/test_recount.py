"""What each rank carries, and the flaws of a placement: the native version is held to the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.kernels.recount import DOUBLED, EMPTY, MISSING, TORN, UNEVEN, numba, reference


@st.composite
def placements(draw):
    layers, per_node, nodes, slots, groups, size = (draw(st.integers(1, n)) for n in (3, 2, 3, 3, 4, 2))
    experts, ranks = groups * size, per_node * nodes
    cells = st.integers(-1, experts)  # -1 is empty, the last is no expert
    total = layers * ranks * slots
    table = np.array(draw(st.lists(cells, min_size=total, max_size=total)), dtype=np.int32).reshape(layers, -1)
    load = np.array(draw(st.lists(st.integers(0, 99), min_size=layers * experts, max_size=layers * experts)), float)
    return table, load.reshape(layers, experts), ranks, nodes, groups


@settings(max_examples=300)
@given(placements())
def test_the_native_version_agrees_with_the_plain_one(case):
    (mine, my_flaws), (plain, its_flaws) = numba.recount(*case), reference.recount(*case)
    assert mine.tolist() == plain.tolist()
    assert my_flaws.tolist() == its_flaws.tolist()


@pytest.mark.parametrize("version", [numba, reference])
def test_each_replica_carries_its_share_and_every_flaw_is_told(version):
    load = np.array([[4.0, 2.0, 1.0]] * 5)
    table = np.array([[0, 1, 0, 2], [0, 1, 2, -1], [0, 0, 1, 2], [0, 1, 0, 1], [0, 1, 2, 3]], dtype=np.int32)
    rank_load, flaws = version.recount(table, load, 2, 1, 1)
    assert rank_load.tolist() == [[4.0, 3.0], [6.0, 1.0], [4.0, 3.0], [3.0, 3.0], [6.0, 1.0]]
    assert flaws.tolist() == [0, EMPTY, DOUBLED, MISSING, EMPTY]


@pytest.mark.parametrize("version", [numba, reference])
def test_groups_are_whole_on_a_node_and_spread_evenly(version):
    table = np.array([[0, 1, 2, 3], [0, 2, 1, 3], [0, 1, 0, 1]], dtype=np.int32)
    assert version.recount(table, np.ones((3, 4)), 2, 2, 2)[1].tolist() == [0, TORN, MISSING | TORN]
    lonely = np.array([[0, 1, 2, 3, 3, 3]], dtype=np.int32)
    assert version.recount(lonely, np.ones((1, 4)), 2, 2, 4)[1].tolist() == [DOUBLED | UNEVEN]
