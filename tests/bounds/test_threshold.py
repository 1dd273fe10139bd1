from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from equipoise.bounds.threshold import MARGIN, REACH, SLOT_PRICES, STEPS, THETAS, UNIT, bound


def refuted(load: NDArray[np.float64], ranks: int, slots: int, busiest: float) -> NDArray[np.bool_]:
    """Return which theta refute ``busiest``, straight from the three counts that each expert can choose from."""
    found = np.zeros(THETAS, np.bool_)
    for k in range(THETAS):
        theta = busiest * (k + 1) / (2 * THETAS)
        fit, level, light = (
            np.maximum(1, np.ceil(load * (1 - MARGIN) / size)) for size in (busiest, busiest - theta, theta)
        )
        for mu in SLOT_PRICES / UNIT:
            large = np.where(fit < level, (slots - 1 + mu) * fit, np.inf)
            paid = np.minimum(np.minimum(large, mu * level), (mu - 1) * light).sum()
            found[k] |= paid > mu * ranks * slots
    return found


@pytest.mark.parametrize(("experts", "ranks", "slots"), [(256, 144, 2), (40, 24, 2), (30, 16, 3), (9, 5, 4)])
def test_the_bound_is_what_some_theta_refutes_and_no_theta_refutes_a_step_more(
    experts: int, ranks: int, slots: int
) -> None:
    raised = 0
    for sigma in (0.4, 0.8, 1.3, 2.6):
        load = np.random.default_rng([experts, int(10 * sigma)]).lognormal(10, sigma, (8, experts))
        low = load.sum(axis=1) / ranks
        found = bound(load, low, np.full(8, np.inf), ranks, slots)
        for layer in range(8):
            if found[layer] > low[layer]:
                raised += 1
                assert refuted(load[layer], ranks, slots, found[layer]).any()
            if found[layer] < low[layer] * (1 + REACH * (STEPS - 2) / STEPS):
                more = found[layer] + low[layer] * REACH / STEPS
                assert not refuted(load[layer], ranks, slots, more).any()
    assert raised > 8 or slots > 2  # where it seldom proves anything


def test_what_is_achieved_saves_time_and_changes_nothing() -> None:
    load = np.random.default_rng(1).lognormal(10, 0.7, (16, 256))
    low = load.sum(axis=1) / 144
    found = bound(load, low, np.full(16, np.inf), 144, 2)
    for factor in (1.0, 1.001, 1.1):
        assert np.array_equal(bound(load, low, found * factor * (1 + 1e-12), 144, 2), found)


def test_the_order_of_experts_does_not_matter_and_layers_without_tokens_stay() -> None:
    random = np.random.default_rng(2)
    load = np.concatenate([random.lognormal(10, 0.7, (3, 256)), np.zeros((1, 256))])
    low = load.sum(axis=1) / 144
    found = bound(load, low, np.full(4, np.inf), 144, 2)
    assert np.array_equal(bound(load[:, random.permutation(256)], low, np.full(4, np.inf), 144, 2), found)
    assert found[3] == 0.0
