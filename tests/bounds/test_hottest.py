"""What the counts of the hottest expert prove: the native version is held to the plain one, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import equipoise as eq
from equipoise.bounds import hottest, hottest_reference, lower_bounds

SHAPES = [(3, 4, 1), (4, 3, 2), (12, 8, 2), (9, 4, 3), (24, 8, 4), (16, 16, 2), (5, 2, 8), (8, 24, 4)]


def layers(experts: int, seed: int) -> NDArray[np.float64]:
    """Return layers [10, experts]: skewed, one expert above all, ties, zeros, nothing, giants and crumbs."""
    random = np.random.default_rng(seed)
    load = random.lognormal(0, random.uniform(0.2, 3, (10, 1)), (10, experts))
    load[1:5, 0] = load[1:5, 1:].sum(axis=1) * random.uniform(0.2, 20, 4)
    load[3] = np.rint(3 * load[3])  # ties
    load[4, experts // 2 :] = 0
    load[5], load[6], load[7, 1:] = 0, 7, 0
    load[8] *= 1e300 / load[8].sum()
    load[9] *= 1e-300
    return np.asarray(-np.sort(-load, axis=1))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32 - 1))
def test_the_native_version_proves_what_the_plain_one_does(shape: tuple[int, int, int], seed: int) -> None:
    experts, ranks, slots = shape
    problem = eq.PlacementProblem(layers(experts, seed), eq.Cluster(ranks, slots))
    known, unknown = lower_bounds(problem, quick=True)[0], np.full(10, np.inf)
    plain = hottest_reference.bound(problem.load, known, unknown, ranks, slots)
    assert hottest.bound(problem.load, known, unknown, ranks, slots).tolist() == plain.tolist()
    reached = eq.solve(problem, strategy="plain-greedy").certificate.max_rank_load
    assert hottest.bound(problem.load, known, reached, ranks, slots).tolist() == plain.tolist()


@pytest.mark.parametrize("shape", [(4, 3, 2), (12, 8, 2), (9, 4, 3), (24, 8, 4)])
def test_the_layers_compared_are_such_that_something_is_proved(shape: tuple[int, int, int]) -> None:
    experts, ranks, slots = shape
    raised = 0
    for seed in range(8):
        problem = eq.PlacementProblem(layers(experts, seed), eq.Cluster(ranks, slots))
        known = lower_bounds(problem, quick=True)[0]
        raised += int((hottest.bound(problem.load, known, np.full(10, np.inf), ranks, slots) > known).sum())
    assert raised >= 4
