from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.traces.drift import LAGS, drift_of


def test_numbers_are_those_of_plain_loops() -> None:
    steps = np.random.default_rng(0).integers(0, 60, (11, 3, 8)).astype(float)
    found = drift_of(eq.Trace(steps), window=2)
    windows = steps[:10].reshape(5, 2, 3, 8).sum(axis=1)
    assert np.array_equal(found.load, steps.sum(axis=0))
    for i, lag in enumerate(LAGS[:3]):
        pairs = [(a, b) for a, b in zip(windows, windows[lag:], strict=False)]
        alike = [np.corrcoef(a[layer], b[layer])[0, 1] for a, b in pairs for layer in range(3)]
        away = [
            abs(a[layer] / a[layer].sum() - b[layer] / b[layer].sum()).sum() / 2 for a, b in pairs for layer in range(3)
        ]
        assert found.correlation[i] == pytest.approx(np.mean(alike))
        assert found.variation[i] == pytest.approx(np.mean(away))
    assert np.isnan(found.variation[3:]).all()
    assert found.skew == pytest.approx([(w.max(axis=1) / w.mean(axis=1)).mean() for w in windows])


def test_samples_of_one_distribution_stay_representative_and_a_new_one_does_not() -> None:
    draw = np.random.default_rng(1)
    rate = 100 * draw.gamma(1.0, 1.0, (2, 32))
    still = drift_of(eq.Trace(draw.poisson(rate, (130, 2, 32))))
    assert still.representative == LAGS[-1]
    assert still.noise[0] == pytest.approx(still.variation[0], rel=0.1)
    moving = [draw.poisson(100 * draw.gamma(1.0, 1.0, (2, 32))) for _ in range(70)]
    assert drift_of(eq.Trace(moving)).representative == 0


def test_windows_without_tokens_and_single_windows_are_ordinary() -> None:
    steps = np.zeros((3, 1, 4))
    steps[0, 0] = [1, 2, 3, 4]
    found = drift_of(eq.Trace(steps))
    assert found.num_idle == 2
    assert np.isnan(found.variation).all()
    assert drift_of(eq.Trace(steps[:1])).num_windows == 1
