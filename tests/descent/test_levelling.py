"""The parts of a descent: each keeps the ranks in order, and does what it promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from descents import Kernels, assert_consistent, assert_ties_go_to_the_lowest, dealt
from equipoise.descent.facts import NEVER, TARGET

LINE, SWAPS = Kernels("line"), Kernels("swaps")
STEPS: dict[str, Callable[[Any, int], Any]] = {
    "redeal": lambda layer, target: Kernels("redeal").redeal(layer, target),
    "descend": lambda layer, target: SWAPS.descend(layer, target),
    "pairs": lambda layer, target: SWAPS.swap_pairs(layer, target),
    "swaps in line": lambda layer, target: LINE.level_by_swaps(layer, target, NEVER),
    "chains": lambda layer, target: LINE.level_by_chains(layer, target, NEVER),
}
SHAPES = [(60, 40, 3), (20, 12, 3), (40, 16, 5), (30, 12, 6), (7, 7, 3)]  # experts, ranks, slots


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("step", STEPS)
def test_a_step_only_moves_replicas_and_never_makes_the_heaviest_rank_heavier(
    shape: tuple[int, int, int], seed: int, step: str
) -> None:
    layer = dealt(shape, seed)
    target, before = layer.facts[TARGET], layer.ranks.load.max()
    STEPS[step](layer, target)
    assert_consistent(layer)
    assert_ties_go_to_the_lowest(layer.ranks)
    assert layer.ranks.load.max() <= before


def test_dealing_again_does_most_of_the_work_where_three_slots_a_rank_are_far_from_level() -> None:
    for seed in range(4):
        layer = dealt((256, 144, 3), seed, 0.7)
        ranks, mean = layer.ranks, layer.ranks.load.mean()
        before = ranks.load.max() - mean
        STEPS["redeal"](layer, int(mean))
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
        layer = dealt(shape, seed)
        LINE.level_by_chains(layer, int(layer.ranks.load.mean()), NEVER if chains else 0)
        assert best_swap(layer.ranks) == layer.ranks.load.max()


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
    Kernels("sorting").sort_ascending(keys, np.empty(2 * size + 1, np.int64))
    assert np.array_equal(keys, expected)
