from __future__ import annotations

import numpy as np
import pytest

from equipoise.metrics import Metrics, balancedness, imbalance_ratio, sglang_utilization, vllm_balancedness

RANK_LOAD = np.array([[4.0, 2.0], [3.0, 3.0], [0.0, 0.0]])


def test_balancedness_is_mean_over_max_of_each_layer() -> None:
    assert balancedness(RANK_LOAD).tolist() == [0.75, 1.0, 1.0]


def test_the_imbalance_ratio_is_max_over_mean_less_one() -> None:
    np.testing.assert_allclose(imbalance_ratio(RANK_LOAD), [1 / 3, 0.0, 0.0])


def test_vllm_divides_sums_over_layers_so_that_busy_layers_count_more() -> None:
    assert vllm_balancedness(RANK_LOAD) == 6.0 / 7.0
    assert vllm_balancedness(np.zeros((2, 2))) == 1.0


def test_sglang_averages_the_layers_ratios() -> None:
    assert sglang_utilization(RANK_LOAD) == pytest.approx((0.75 + 1.0 + 1.0) / 3, abs=1e-5)


def test_metrics_name_their_average_and_their_worst() -> None:
    metrics = Metrics(RANK_LOAD.mean(axis=1), RANK_LOAD.max(axis=1), np.zeros(3, dtype=np.int64))
    assert metrics.balancedness.tolist() == balancedness(RANK_LOAD).tolist()
    np.testing.assert_allclose(metrics.imbalance_ratio, imbalance_ratio(RANK_LOAD))
    assert metrics.mean_balancedness == pytest.approx(2.75 / 3)
    assert metrics.worst_balancedness == 0.75
