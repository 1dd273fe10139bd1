"""What is tried beyond the first descent: whatever it tries, it keeps the best and says what that reaches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from descents import FOLD, LAYERS, SHAPES, Kernels, assert_consistent, layer_of
from equipoise.descent import tuning
from equipoise.descent.facts import BOUND, FITTED, MOST, NEVER, REACHED, RELAXED, SQUEEZED, STEPS, TARGET
from equipoise.descent.layer import Layer

further = Kernels("further")

SEARCHES: dict[str, Callable[[Any], None]] = {
    "other counts": lambda layer: further._relax(layer, layer.facts[TARGET], 2),
    "deals": lambda layer: further._deal(layer, 40),
    "polish": lambda layer: further._polish(layer, tuning.POLISH_LAST),
    "fitted starts": lambda layer: further._finish(layer),
    "all of it": lambda layer: further._search(layer, 0.0),
}


def descended(shape: tuple[int, int, int], seed: int, sigma: float = 1.0, below: float = 0.0) -> Layer:
    """Return a layer after its first descent, ``below`` the way from there to its bound being the target."""
    experts, num_ranks, slots = shape
    load = np.random.default_rng([*shape, seed]).lognormal(10, sigma, experts)
    layer = layer_of(np.rint(load * 1000).astype(np.int64), num_ranks, slots)
    FOLD.fold(layer)
    Kernels("swaps").improve(layer, layer.facts[BOUND], NEVER)
    LAYERS.keep(layer)
    reached, bound = layer.facts[REACHED], layer.facts[BOUND]
    layer.facts[TARGET] = bound + int((reached - bound) * (1 - below))
    return layer


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_a_search_keeps_the_best_placement_and_says_what_it_reaches(
    search: Callable[[Any], None], shape: tuple[int, int, int]
) -> None:
    for seed in range(3):
        layer = descended(shape, seed, below=0.9)
        before = layer.facts[REACHED]
        search(layer)
        assert layer.facts[REACHED] <= before
        LAYERS.restore(layer, layer.best)
        assert_consistent(layer)
        assert layer.ranks.load.max() == layer.facts[REACHED]


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_each_search_gets_some_layers_nearer_to_the_bound(search: Callable[[Any], None]) -> None:
    better = 0
    for seed in range(6):
        layer = descended((30, 12, 6), seed, below=0.5)
        before = layer.facts[REACHED]
        search(layer)
        better += layer.facts[REACHED] - layer.facts[BOUND] < 0.8 * (before - layer.facts[BOUND])
    assert better >= 4


@pytest.mark.parametrize("name", ["other counts", "polish", "fitted starts"])
def test_a_layer_at_its_target_is_left_alone(name: str) -> None:
    layer = descended((30, 12, 6), 0)
    best, facts = layer.best.copy(), layer.facts.copy()
    SEARCHES[name](layer)
    assert np.array_equal(layer.best, best)
    assert np.array_equal(layer.facts, facts)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_without_work_to_spend_nothing_changes_but_the_count(search: Callable[[Any], None]) -> None:
    layer = descended((30, 12, 6), 0, below=0.5)
    layer.facts[MOST] = layer.facts[STEPS]
    best, reached, spent = layer.best.copy(), layer.facts[REACHED], layer.facts[STEPS]
    search(layer)
    assert np.array_equal(layer.best, best)
    assert layer.facts[REACHED] == reached
    assert layer.facts[STEPS] - spent < 100_000


def test_other_counts_are_counted_where_they_were_kept_and_only_there() -> None:
    for seed in range(6):
        layer = descended((16, 8, 4), seed, below=0.5)
        before = layer.facts[REACHED]
        further._relax(layer, layer.facts[TARGET], 2)
        kept = layer.facts[RELAXED] + layer.facts[SQUEEZED]
        assert (kept > 0) == (layer.facts[REACHED] < before)
        assert layer.facts[FITTED] == 0
