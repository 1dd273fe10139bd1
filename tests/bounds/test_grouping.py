"""Groups to nodes: the native search is held to one that tries every grouping in full."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.bounds import grouping, grouping_reference
from equipoise.bounds.grouping import all_groupings, node_sets


@settings(max_examples=100)
@given(st.sampled_from([(2, 1), (2, 2), (4, 2), (6, 2), (6, 3), (8, 4)]), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_native_version_agrees_with_the_plain_one(shape, size, seed):
    (groups, nodes), random = shape, np.random.default_rng(seed)
    experts = groups * size
    load = np.rint(random.lognormal(3, random.uniform(0, 2.5), (5, experts)))  # whole numbers: sums are exact
    load[0], load[1] = 0, 7
    sets, set_of_node = node_sets(groups, nodes)
    for spare in (0, 1, 4):
        arguments = load, sets, set_of_node, int(random.integers(1, 5)), experts // nodes + spare
        (mine, promised), (plain, least) = grouping.choose(*arguments), grouping_reference.choose(*arguments)
        assert promised.tolist() == least.tolist()
        assert mine.tolist() == plain.tolist()


@pytest.mark.parametrize(("groups", "nodes", "ways"), [(8, 4, 105), (4, 2, 3), (6, 3, 15), (3, 3, 1), (5, 1, 1)])
def test_there_are_as_many_groupings_as_there_should_be(groups, nodes, ways):
    table = all_groupings(groups, nodes)
    assert table.shape == (ways, groups)
    assert len({tuple(row) for row in table.tolist()}) == ways
    sets, set_of_node = node_sets(groups, nodes)
    for row, those in zip(table, set_of_node, strict=True):
        assert [np.flatnonzero(row == node).tolist() for node in range(nodes)] == sets[those].tolist()


def test_too_many_groupings_are_not_listed():
    assert all_groupings(32, 8) is None
