"""Two slots a rank: pairing for given counts, and the counts that are searched for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from descents import COUNTS, Kernels, layer_of
from equipoise.descent.facts import MOST

pairing = Kernels("pairing")


def matchings(items: list[int]) -> Iterator[int]:
    """Yield the heaviest pair of every way to put these loads in pairs."""
    if not items:
        yield 0
        return
    first, *rest = items
    for i, other in enumerate(rest):
        for heaviest in matchings(rest[:i] + rest[i + 1 :]):
            yield max(first + other, heaviest)


def every_count(experts: int, left: int, most: int) -> Iterator[list[int]]:
    """Yield all replica counts of so many experts, at least one each."""
    if experts == 1:
        if 1 <= left <= most:
            yield [left]
        return
    for number in range(1, min(most, left - experts + 1) + 1):
        for others in every_count(experts - 1, left - number, most):
            yield [number, *others]


@settings(max_examples=100)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=8), st.data())
def test_largest_with_smallest_is_the_best_way_to_pair(loads: list[int], data: Any) -> None:
    ranks = data.draw(st.integers((len(loads) + 1) // 2, 4))
    layer = layer_of(np.array(sorted(loads, reverse=True), np.int64) * 12, ranks, 2)
    counts = data.draw(st.sampled_from(list(every_count(len(loads), 2 * ranks, 2 * ranks))))
    replicas = np.array(counts, np.int64)
    heaviest = pairing.pair(layer, replicas)
    each = (layer.weight // replicas).tolist()
    assert heaviest == min(matchings([each[e] for e in range(len(counts)) for _ in range(counts[e])]))
    held = layer.ranks.expert
    assert np.bincount(held.ravel(), minlength=len(counts)).tolist() == counts
    assert max(each[e] + each[f] for e, f in held.tolist()) == heaviest


def searched(layer: Any, tries: int) -> tuple[int, int, int]:
    """Return what the best counts pair to, what the counts that a search comes to do, and the slots that it moved."""
    replicas, ranks = layer.ranks.replicas, len(layer.ranks.load)
    COUNTS.count_least_largest(layer.weight, 2 * ranks, ranks, replicas)
    before = pairing.pair(layer, replicas)
    moved = pairing.search_counts(layer, 0.0, tries)
    assert replicas.sum() == 2 * ranks
    assert replicas.min() >= 1
    assert replicas.max() <= ranks
    return int(before), int(pairing.pair(layer, replicas)), int(moved)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0])
def test_a_search_for_counts_never_makes_the_heaviest_pair_heavier(sigma: float) -> None:
    better = 0
    for seed in range(20):
        random = np.random.default_rng([seed, int(10 * sigma)])
        load = np.rint(random.lognormal(10, sigma, int(random.integers(20, 48)))).astype(np.int64)
        before, after, moved = searched(layer_of(np.sort(load)[::-1].copy(), 24, 2), 16)
        assert after <= before
        assert (after < before) == (moved > 0)
        better += after < before
    assert better >= 5, "other counts are better in some layers"


def test_a_search_for_counts_comes_near_the_best_of_all() -> None:
    total = 0.0
    for seed in range(30):
        random = np.random.default_rng(seed)
        experts = int(random.integers(4, 9))
        load = np.sort(np.rint(random.lognormal(10, 1, experts)).astype(np.int64))[::-1].copy()
        layer = layer_of(load, 5, 2)
        _, after, _ = searched(layer, 16)
        best = min(pairing.pair(layer, np.array(counts, np.int64)) for counts in every_count(experts, 10, 5))
        assert best <= after
        total += after / best - 1
    assert total / 30 < 0.02, f"{100 * total / 30:.2f} % above the best on average"


def test_a_search_without_work_to_spend_leaves_the_counts_as_they_are() -> None:
    layer = layer_of(np.array([90, 60, 30, 20, 10, 5, 4], np.int64) * 1000, 6, 2)
    layer.facts[MOST] = 0
    before, after, moved = searched(layer, 16)
    assert (after, moved) == (before, 0)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=8), st.data())
def test_no_theta_lacks_company_where_and_only_where_the_pairs_stay_below_the_goal(loads: list[int], data: Any) -> None:
    """Hall's condition, which the grid makes coarser by half of one of its steps."""
    ranks = data.draw(st.integers((len(loads) + 1) // 2, 4))
    layer = layer_of(np.array(sorted(loads, reverse=True), np.int64) * 840, ranks, 2)  # whole with up to 8 replicas
    replicas = np.array(data.draw(st.sampled_from(list(every_count(len(loads), 2 * ranks, 8)))), np.int64)
    heaviest = int(pairing.pair(layer, replicas))
    goal = data.draw(st.floats(0.8, 1.2)) * max(heaviest, 1)
    deficit = np.zeros(pairing.GRID, np.int64)
    for load, count in zip(layer.weight, replicas, strict=True):
        steps = np.zeros((3, 2), np.int32)
        pairing._set_steps(load, count, goal, steps)
        at, height = steps[pairing.NOW]
        deficit[at:] += height
    if heaviest <= goal:
        assert deficit.max() <= 0
    if heaviest > goal * (1 + 0.5 / pairing.GRID):
        assert deficit.max() > 0
