"""Replica counts: the native version is held to the plain one, and the plain rule to all counts that there are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.fixed_point import to_fixed_point
from equipoise.kernels.replication import numba, reference
from equipoise.testing import every_share, random_load


@st.composite
def rows(draw):
    experts, most = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    size = st.lists(st.integers(0, draw(st.sampled_from([2, 50, 2**40]))), min_size=experts, max_size=experts)
    return np.array([draw(size), draw(size)], np.int64), draw(st.integers(experts, experts * most)), most


@given(rows())
def test_the_native_version_agrees_with_the_plain_one(case):
    for native, plain in zip(numba.replicate(*case), reference.replicate(*case), strict=True):
        assert native.dtype == plain.dtype
        assert np.array_equal(native, plain)


def largest_replica(load, slots):
    _, counts = numba.replicate(to_fixed_point(load), slots, slots)
    assert counts.min() >= 1
    assert (counts.sum(axis=1) == slots).all()
    return (load / counts).max(axis=1)


@pytest.mark.parametrize(("experts", "slots"), [(1, 3), (2, 5), (3, 7), (4, 6)])
def test_no_other_counts_reach_a_smaller_largest_replica(experts, slots):
    load = random_load(64, experts, np.random.default_rng(1))
    # One slot a rank: what the busiest rank carries is the largest replica.
    best = [(every_share(experts, slots, 1) @ row).max(axis=1).min() for row in load]
    np.testing.assert_allclose(largest_replica(load, slots), best, rtol=1e-11)


def test_one_more_slot_never_hurts():
    load = random_load(32, 5, np.random.default_rng(2))
    largest = [largest_replica(load, slots) for slots in range(5, 15)]
    assert all((more <= fewer).all() for fewer, more in pairwise(largest))
