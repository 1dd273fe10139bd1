"""Layers in the middle of a descent, for the tests of its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.descent.counts import set_target
from equipoise.descent.facts import MOST, TARGET, new_facts
from equipoise.descent.fold import fold
from equipoise.descent.layer import Layer, keep, new_layer, read_layer

SHAPES = [(16, 8, 4), (40, 16, 5), (30, 12, 6)]  # experts, ranks, slots


def dealt(shape: tuple[int, int, int], seed: int, sigma: float = 1.0, slack: float = 1.001) -> Layer:
    """Return a layer after the first deal of its replicas, kept as the best; ``slack`` times the mean is its target."""
    experts, num_ranks, slots = shape
    load = np.random.default_rng([*shape, seed]).lognormal(10, sigma, experts)
    layer = layer_of(np.rint(load * 1000).astype(np.int64), num_ranks, slots)
    fold(layer)
    keep(layer)
    layer.facts[TARGET] = int(layer.ranks.load.mean() * slack)
    return layer


def layer_of(load: NDArray[np.int64], num_ranks: int, slots: int, effort: str = "balanced") -> Layer:
    """Return a layer of these loads with the counts that make its largest replica least, and work to spend."""
    experts = len(load)
    bits = experts.bit_length()
    layer = new_layer(num_ranks, slots, experts, num_ranks, np.zeros(1, np.bool_))
    facts = new_facts(np.zeros(1, np.int64), effort)
    read_layer(layer, np.sort((~load << bits) | np.arange(experts)), bits, facts[0])
    layer.facts[MOST] = 10**12
    set_target(layer, 0.001)
    return layer


def assert_consistent(layer: Any) -> None:
    """Recount all that the ranks say of their slots: replicas, values, loads, and the order of each."""
    ranks, weight = layer.ranks, layer.weight
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
