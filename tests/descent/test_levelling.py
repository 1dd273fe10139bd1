"""The parts of a descent: each keeps the ranks in order, and does what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from descents import assert_consistent, assert_ties_go_to_the_lowest, dealt
from equipoise.descent import STAGES
from equipoise.descent.improve import descend, swap_pairs
from equipoise.descent.line import level
from equipoise.descent.redeal import redeal
from equipoise.descent.state import NEVER, sort_ascending

SHAPES = [(60, 40, 3), (20, 12, 3), (40, 16, 5), (30, 12, 6), (7, 7, 3)]  # experts, ranks, slots


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
    assert_ties_go_to_the_lowest(ranks)
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
