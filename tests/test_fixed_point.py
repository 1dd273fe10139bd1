from __future__ import annotations

import numpy as np
import pytest

from equipoise.fixed_point import LARGEST, replica_weight, to_fixed_point
from equipoise.testing import random_load


@pytest.mark.parametrize("experts", [1, 8, 256, 4096, 40_000])
def test_sums_stay_exact_in_float64(experts: int) -> None:
    fixed = to_fixed_point(np.ones((2, experts)), num_packs=1024)
    assert fixed.sum(axis=1).max() <= 2**52
    assert int(fixed.sum(axis=1).max()) * 1024 < 2**63


def test_the_hottest_expert_of_a_layer_becomes_the_same_number_everywhere() -> None:
    load = random_load(64, 16, np.random.default_rng(0))
    assert set(to_fixed_point(load).max(axis=1).tolist()) == {0, LARGEST}


@pytest.mark.parametrize("experts", [40, 3000, 9000])
def test_replicas_of_a_hot_expert_tie_with_experts_that_have_their_load(experts: int) -> None:
    for replicas in (*range(1, 23), 24, 33, 36, 48, 64, 100, 144):
        load = np.ones((1, experts))
        load[0, 7] = 3 * replicas
        load[0, 5] = 3
        for scale in (1.0, 3.7, 1e-6):
            fixed = to_fixed_point(load * scale)[0]
            assert fixed[7] // replicas == fixed[5]
            assert fixed[5] // 3 == fixed[0]


def test_ties_stay_ties_and_order_stays_order() -> None:
    fixed = to_fixed_point(np.array([[0.1 + 0.2, 0.3, 5.0, 5.0, 0.0]]))[0]
    assert fixed[2] == fixed[3]
    assert fixed[0] == fixed[1]  # equal up to a rounding of float64, and so meant to be equal
    assert fixed[4] == 0


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_very_small_and_very_large_loads_keep_their_shape(scale: float) -> None:
    load = np.array([[4.0, 2.0, 1.0]])
    assert to_fixed_point(load * scale).tolist() == to_fixed_point(load).tolist()


def test_a_replica_carries_its_share_rounded_down() -> None:
    weight, replicas = np.array([[7, 4]]), np.array([[2, 1]], dtype=np.int32)
    slots = np.array([[0, 1, 0]], dtype=np.int32)
    assert replica_weight(weight, replicas, slots).tolist() == [[3, 4, 3]]
