"""Rows in the middle of a descent, for the tests of its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.descent.start import count_least_largest, fold
from equipoise.descent.state import new_ranks, new_space

SHAPES = [(16, 8, 4), (40, 16, 5), (30, 12, 6)]  # experts, ranks, slots


def dealt(shape: tuple[int, int, int], seed: int, sigma: float = 1.0) -> tuple[NDArray[np.int64], Any, Any]:
    """Return descending loads, and the ranks and work space of a first deal of them."""
    experts, num_ranks, slots = shape
    load = np.random.default_rng([*shape, seed]).lognormal(10, sigma, experts)
    weight = np.sort(np.rint(load * 1000).astype(np.int64))[::-1].copy()
    ranks, space = new_ranks(num_ranks, slots, experts), new_space(num_ranks, slots, experts, num_ranks)
    count_least_largest(weight, num_ranks * slots, num_ranks, ranks.replicas)
    fold(weight, ranks, space.keys, space.spare)
    return weight, ranks, space


def assert_consistent(weight: NDArray[np.int64], ranks: Any) -> None:
    """Recount all that ``ranks`` says of its slots: replicas, values, loads, and the order of each."""
    held = np.sort(ranks.expert, axis=1)
    assert (held[:, 1:] != held[:, :-1]).all(), "an expert lies twice on a rank"
    assert np.array_equal(np.bincount(ranks.expert.ravel(), minlength=len(weight)), ranks.replicas)
    each = (weight // ranks.replicas)[ranks.expert]
    assert np.array_equal(each, ranks.value)
    assert np.array_equal(each.sum(axis=1), ranks.load)
    assert (np.diff(each, axis=1) >= 0).all()
    assert sorted(ranks.order.tolist()) == list(range(len(ranks.load)))
    assert (np.diff(ranks.load[ranks.order]) >= 0).all()


def assert_ties_go_to_the_lowest(ranks: Any) -> None:
    """The order of the ranks is by load, and by number where loads are equal."""
    assert np.array_equal(ranks.order, np.lexsort((np.arange(len(ranks.load)), ranks.load)))
