"""Squeezing, and dealing two places of all ranks again: what finishes a layer that is nearly level."""

from __future__ import annotations

import pytest

from descents import SHAPES, Kernels, assert_consistent, dealt

SQUEEZE = Kernels("squeeze")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(8))
def test_squeezing_only_moves_replicas_and_says_whether_all_ranks_are_below_the_target(
    shape: tuple[int, int, int], seed: int
) -> None:
    layer = dealt(shape, seed)
    for slack in (1.0001, 1.01, 1.1):
        target = int(layer.ranks.load.mean() * slack)
        assert SQUEEZE.squeeze(layer, target) == (layer.ranks.load.max() <= target)
        assert_consistent(layer)


def test_squeezing_finds_room_that_levelling_has_spread() -> None:
    found = 0
    for seed in range(8):
        layer = dealt((40, 16, 5), seed)
        found += SQUEEZE.squeeze(layer, int(layer.ranks.load.mean() * 1.02))
    assert found >= 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("places", [(3, 2), (3, 0), (1, 0)])
def test_dealing_two_places_of_all_ranks_again_only_moves_replicas(
    shape: tuple[int, int, int], places: tuple[int, int]
) -> None:
    for seed in range(4):
        layer = dealt(shape, seed)
        SQUEEZE.deal_again(layer, int(layer.ranks.load.mean() * 1.01), *places)
        assert_consistent(layer)
