"""The native re-planner takes the same steps as the plain one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from equipoise.replan.levelling import numba, reference
from replans import random_in_force


def instance(seed: int):
    """Return the arguments of ``descend`` for small random layers in force, with small loads that tie or large ones."""
    rng = np.random.default_rng(seed)
    start = random_in_force(rng)
    if start is None:
        return None
    layers, ranks, experts = start.was.shape
    small, large = rng.integers(0, 9, (layers, experts)), rng.random((layers, experts)) ** 3 * 2**40
    weight = (small if rng.random() < 0.5 else large).astype(np.int64)
    limit = start.taken + rng.integers(0, 6, layers)
    return start.held, start.was, weight, start.node, start.home, weight.sum(axis=1) // ranks, limit


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_both_implementations_take_the_same_steps(seed):
    asked = instance(seed)
    assume(asked is not None)
    plain, native = reference.descend(*asked), numba.descend(*asked)
    for one, other in zip(plain, native, strict=True):
        assert one.tolist() == other.tolist()


@settings(max_examples=100)
@given(st.integers(0, 2**32))
def test_the_curve_never_rises_and_ends_at_what_is_returned(seed):
    asked = instance(seed)
    assume(asked is not None)
    held, curve, spent = numba.descend(*asked)
    assert (np.diff(curve.astype(float), axis=1) <= 0).all()
    for row, limit in enumerate(asked[6]):
        assert spent[row] <= limit
        weight, slots = asked[2][row], held[row]
        replicas = np.bincount(slots[slots >= 0], minlength=len(weight))
        assert replicas.min() >= 1
        load = max(sum(weight[e] // replicas[e] for e in rank if e >= 0) for rank in slots)
        assert load == curve[row, -1]


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_a_larger_limit_goes_on_where_a_smaller_one_ends_as_the_curve_says(seed):
    asked = instance(seed)
    assume(asked is not None)
    least = numba.descend(*asked[:6], np.zeros(len(asked[0]), dtype=np.int64) + 40)[1]
    for more in range(12):
        limit = asked[6] + more
        _, curve, _ = numba.descend(*asked[:6], limit)
        for row, most in enumerate(limit):
            assert curve[row, most] == least[row, most]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads):
    asked = instance(3)
    for one, other in zip(numba.descend(*asked), numba.descend(*asked, threads=threads), strict=True):
        assert one.tolist() == other.tolist()
