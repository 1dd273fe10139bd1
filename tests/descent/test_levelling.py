"""The parts of a descent: each keeps the ranks in order, and does what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from equipoise.descent import STAGES
from equipoise.descent.improve import descend, swap_pairs
from equipoise.descent.line import level
from equipoise.descent.redeal import redeal
from equipoise.descent.start import count_least_largest, fold
from equipoise.descent.state import NEVER, new_ranks, new_space, sort_ascending

SHAPES = [(60, 40, 3), (20, 12, 3), (40, 16, 5), (30, 12, 6), (7, 7, 3)]  # experts, ranks, slots


def dealt(shape: tuple[int, int, int], seed: int, sigma: float = 1.0) -> tuple[NDArray[np.int64], Any, Any]:
    """Return descending loads, and the ranks and work space of a first deal of them."""
    experts, num_ranks, slots = shape
    load = np.random.default_rng([*shape, seed]).lognormal(10, sigma, experts)
    weight = np.sort(np.rint(load * 1000).astype(np.int64))[::-1].copy()
    ranks, space = new_ranks(num_ranks, slots, experts), new_space(num_ranks, slots, experts, 0)
    count_least_largest(weight, num_ranks * slots, num_ranks, ranks.replicas)
    fold(weight, ranks, space.keys, space.spare)
    return weight, ranks, space


def assert_consistent(weight: NDArray[np.int64], ranks: Any) -> None:
    held = np.sort(ranks.expert, axis=1)
    assert (held[:, 1:] != held[:, :-1]).all(), "an expert lies twice on a rank"
    assert np.array_equal(np.bincount(ranks.expert.ravel(), minlength=len(weight)), ranks.replicas)
    each = (weight // ranks.replicas)[ranks.expert]
    assert np.array_equal(each, ranks.value)
    assert np.array_equal(each.sum(axis=1), ranks.load)
    assert (np.diff(each, axis=1) >= 0).all()
    assert np.array_equal(ranks.order, np.lexsort((np.arange(len(ranks.load)), ranks.load)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("step", ["redeal", "descend", "pairs", "level"])
def test_a_step_only_moves_replicas_and_never_makes_the_heaviest_rank_heavier(
    shape: tuple[int, int, int], seed: int, step: str
) -> None:
    weight, ranks, space = dealt(shape, seed)
    target = int(ranks.load.mean() * 1.001)
    before = ranks.load.max()
    if step == "redeal":
        redeal(ranks, target, space.pool, space.keys, space.spare)
    elif step == "descend":
        descend(ranks, target)
    elif step == "pairs":
        swap_pairs(ranks, target, space)
    else:
        level(ranks, target, NEVER, space, np.zeros(len(STAGES), np.int64))
    assert_consistent(weight, ranks)
    assert ranks.load.max() <= before


def test_dealing_again_does_most_of_the_work_where_three_slots_a_rank_are_far_from_level() -> None:
    for seed in range(4):
        _, ranks, space = dealt((256, 144, 3), seed, 0.7)
        mean = ranks.load.mean()
        before = ranks.load.max() - mean
        redeal(ranks, int(mean), space.pool, space.keys, space.spare)
        assert ranks.load.max() - mean < before / 4


def best_swap(ranks: Any) -> int:
    """Return the least that a swap of the heaviest rank can bring the heavier of its two ranks to, by trying all."""
    g = int(ranks.order[-1])
    best = int(ranks.load[g])
    for h in range(len(ranks.load)):
        for i in range(ranks.expert.shape[1]):
            for j in range(ranks.expert.shape[1]):
                e, f = ranks.expert[g, i], ranks.expert[h, j]
                d = int(ranks.value[g, i] - ranks.value[h, j])
                if h != g and e not in ranks.expert[h] and f not in ranks.expert[g]:
                    best = min(best, max(int(ranks.load[g]) - d, int(ranks.load[h]) + d))
    return best


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_where_levelling_is_stuck_the_heaviest_rank_has_no_swap_left(shape: tuple[int, int, int], seed: int) -> None:
    for chains in (False, True):
        _, ranks, space = dealt(shape, seed)
        cutoff = NEVER if chains else np.int64(0)
        stages = np.zeros(len(STAGES), np.int64)
        level(ranks, int(ranks.load.mean()), cutoff, space, stages)
        assert best_swap(ranks) == ranks.load.max()


@pytest.mark.parametrize("kind", ["spread", "sorted", "crowded"])
@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 200, 1000])
def test_keys_are_sorted_however_they_lie(kind: str, size: int) -> None:
    random = np.random.default_rng([size, len(kind)])
    keys = random.permutation(size).astype(np.int64)
    if kind == "sorted":
        keys.sort()
    if kind == "crowded":
        keys = np.append(keys[1:], np.int64(2**60))
    expected = np.sort(keys)
    sort_ascending(keys, np.empty(2 * size + 1, np.int64))
    assert np.array_equal(keys, expected)
