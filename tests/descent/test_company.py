"""Counts under which large replicas find company: the search for them, held to the three conditions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from descents import Kernels, layer_of
from equipoise.descent.facts import TARGET


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
    layer = layer_of(np.rint(load).astype(np.int64), ranks, slots)
    replicas, target = layer.ranks.replicas, int(layer.facts[TARGET])
    first = replicas.copy()
    Kernels("company").find_company(layer, target)
    assert replicas.sum() == ranks * slots
    assert replicas.min() >= 1
    assert replicas.max() <= ranks
    before, after = (failures(layer.weight, counts, target, ranks, slots) for counts in (first, replicas))
    assert after <= before * (1 + 1e-9)


def test_counts_that_some_placement_of_the_target_has_do_not_fail() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        ranks, slots = int(rng.integers(2, 6)), int(rng.integers(4, 6))
        held = np.stack([rng.choice(slots + 4, slots, replace=False) for _ in range(ranks)])
        names, replicas = np.unique(held, return_counts=True)
        weight = rng.lognormal(5, 2, len(names)) * 1000 // 1
        rank_load = (weight / replicas)[np.searchsorted(names, held)].sum(axis=1)
        assert failures(weight, replicas, rank_load.max() * (1 + 1e-12), ranks, slots) <= 1e-6
