"""The stages of joint descent that finish a skewed layer, each beside what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from descents import SHAPES, assert_consistent, dealt
from equipoise.descent.company import find_company
from equipoise.descent.squeeze import deal_again, squeeze
from equipoise.descent.start import count_least_largest


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(8))
def test_squeezing_only_moves_replicas_and_says_whether_all_ranks_are_below_the_target(
    shape: tuple[int, int, int], seed: int
) -> None:
    weight, ranks, space = dealt(shape, seed)
    for slack in (1.0001, 1.01, 1.1):
        target = int(ranks.load.mean() * slack)
        assert squeeze(ranks, target, space) == (ranks.load.max() <= target)
        assert_consistent(weight, ranks)


def test_squeezing_finds_room_that_levelling_has_spread() -> None:
    found = 0
    for seed in range(8):
        _, ranks, space = dealt((40, 16, 5), seed)
        found += squeeze(ranks, int(ranks.load.mean() * 1.02), space)
    assert found >= 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("places", [(3, 2), (3, 0), (1, 0)])
def test_dealing_again_only_moves_the_replicas_at_the_two_places(
    shape: tuple[int, int, int], places: tuple[int, int]
) -> None:
    for seed in range(4):
        weight, ranks, space = dealt(shape, seed)
        deal_again(ranks, weight, int(ranks.load.mean() * 1.01), *places, space)
        assert_consistent(weight, ranks)


def failures(weight: NDArray[np.int64], replicas: NDArray[np.int64], target: float, ranks: int, slots: int) -> float:
    """Return the sum of squared failures, straight from the three conditions."""
    total, theta = 0.0, target / 2
    each, phi_of = weight / replicas, 0.65
    for _ in range(48):
        phi = phi_of * theta
        large, small = each > target - theta, each <= theta
        number = replicas[large].sum()
        between = weight[~large & ~small].sum() - (ranks - number) * target
        lacking = ((slots - 1) * number - replicas[small].sum()) * theta
        elsewhere = phi * slots * (ranks - number) + np.maximum(weight - replicas * phi, 0)[~large].sum()
        kept = weight[large].sum() + weight[~large].sum() - elsewhere - number * target
        total += sum(max(failure, 0.0) ** 2 for failure in (between, lacking, kept))
        theta *= 0.88
    return total


@pytest.mark.parametrize("seed", range(6))
def test_counts_with_company_fail_the_conditions_by_less(seed: int) -> None:
    experts, ranks, slots = 40, 16, 5
    load = np.random.default_rng(seed).lognormal(10, 2.6, experts)
    weight = np.sort(np.rint(load).astype(np.int64))[::-1].copy()
    replicas = np.empty(experts, np.int64)
    largest = count_least_largest(weight, ranks * slots, ranks, replicas)
    target = int(1.001 * max(largest, weight.sum() / ranks))
    before = failures(weight, replicas, target, ranks, slots)
    left, moves = find_company(weight, target, ranks, slots, 32, replicas)
    assert replicas.sum() == ranks * slots
    assert replicas.min() >= 1
    assert replicas.max() <= ranks
    rounding = 1e-20 * target**2
    assert left <= before + rounding
    assert moves > 0 or left == pytest.approx(before, rel=1e-6, abs=rounding)
    assert left == pytest.approx(failures(weight, replicas, target, ranks, slots), rel=1e-6, abs=rounding)


def test_counts_that_some_placement_of_the_target_has_do_not_fail() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        ranks, slots = int(rng.integers(2, 6)), int(rng.integers(4, 6))
        held = np.stack([rng.choice(slots + 4, slots, replace=False) for _ in range(ranks)])
        names, replicas = np.unique(held, return_counts=True)
        weight = rng.lognormal(5, 2, len(names)) * 1000 // 1
        rank_load = (weight / replicas)[np.searchsorted(names, held)].sum(axis=1)
        assert failures(weight, replicas, rank_load.max() * (1 + 1e-12), ranks, slots) <= 1e-6
