"""Forecasts: as the plain version makes them, the same from a stream as from all windows, and whole for odd windows."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import equipoise as eq
from equipoise.errors import InvalidInputError
from equipoise.forecasting import numba, reference
from equipoise.forecasting.smoothing import smooth


def windows_of(seed: int, most: int = 40) -> Any:
    """Draw [windows, layers, experts] of counts that drift, some of them without tokens."""
    rng = np.random.default_rng(seed)
    number, layers, experts = int(rng.integers(1, most)), int(rng.integers(1, 4)), int(rng.integers(1, 9))
    level = np.cumsum(rng.normal(0, 0.3, (number, layers, experts)), axis=0)
    counts = rng.poisson(20 * np.exp(level)).astype(float)
    counts[rng.random((number, layers)) < rng.choice([0, 0.3])] = 0
    return counts * rng.choice([1.0, 0.3])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_both_versions_forecast_the_same_bits(seed: int) -> None:
    windows = windows_of(seed)
    share, tokens = numba.scale(windows)
    plain = reference.scale(windows)
    assert share.tobytes() == plain[0].tobytes()
    assert tokens.tobytes() == plain[1].tobytes()
    times = np.arange(max(0, len(windows) - 5), len(windows))
    sums, number = numba.look(share, tokens, times)
    assert [sums.tolist(), number.tolist()] == [array.tolist() for array in reference.look(share, tokens, times)]
    alpha, noise = (np.array(c) for c in zip(*map(smooth, sums, number, [share.shape[2]] * len(times)), strict=True))
    ahead = numba.project(share, tokens, times, alpha, noise)
    assert ahead.tobytes() == reference.project(share, tokens, times, alpha, noise).tobytes()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_a_stream_gives_the_same_bits_as_all_windows_at_once(seed: int) -> None:
    windows = windows_of(seed, most=130)
    stream = eq.forecast(windows[0])
    for window in windows[1:]:
        stream = stream.update(window)
    whole = eq.forecast(windows)
    assert stream.digest == whole.digest
    assert (stream.num_windows, stream.errors.tobytes()) == (len(windows), whole.errors.tobytes())


def test_only_the_last_96_windows_count_and_are_kept() -> None:
    windows = np.random.default_rng(0).integers(0, 9, (1000, 2, 5))
    forecast = eq.forecast(windows)
    assert len(forecast.windows) == 96
    assert forecast.errors.shape == (64, 2, 5)
    assert forecast.expected.tobytes() == eq.forecast(windows[-96:]).expected.tobytes()
    assert forecast.errors.tobytes() == eq.forecast(windows[-96:]).errors.tobytes()


def test_layers_in_another_order_give_the_forecast_in_that_order() -> None:
    windows = np.random.default_rng(1).poisson(30, (50, 7, 6))
    order = np.random.default_rng(2).permutation(7)
    one, other = eq.forecast(windows), eq.forecast(windows[:, order])
    assert one.expected[order].tobytes() == other.expected.tobytes()
    assert one.errors[:, order].tobytes() == other.errors.tobytes()


def test_any_array_and_any_scale_give_the_same_forecast() -> None:
    windows = np.random.default_rng(1).poisson(30, (20, 2, 6))
    forecast = eq.forecast(windows)
    assert eq.forecast(torch.from_numpy(windows)).digest == forecast.digest
    assert eq.forecast(eq.LoadStatistics(windows)).digest == forecast.digest
    assert eq.forecast(windows * 4.0).share.tobytes() == forecast.share.tobytes()


@pytest.mark.parametrize("number", [1, 2, 40])
def test_windows_that_are_alike_are_their_own_forecast(number: int) -> None:
    window = np.array([[5.0, 3.0, 0.5], [0.0, 0.0, 0.0]])
    forecast = eq.forecast(np.stack([window] * number))
    assert forecast.expected.tolist() == window.tolist()
    assert not forecast.errors.any()
    assert not forecast.has_errors.any()


def test_a_window_without_tokens_is_left_out() -> None:
    windows = np.random.default_rng(3).poisson(30, (20, 1, 6)).astype(float)
    gap = np.insert(windows, 10, 0.0, axis=0)
    assert eq.forecast(gap).share.tobytes() == eq.forecast(windows).share.tobytes()


def test_errors_are_what_a_window_had_more_than_was_forecast_from_those_before_it() -> None:
    windows = np.random.default_rng(4).poisson(30, (12, 2, 6)).astype(float)
    forecast, last = eq.forecast(windows), eq.forecast(windows[:-1])
    share = windows[-1] / windows[-1].sum(axis=1, keepdims=True)
    missed = share - last.expected / last.expected.sum(axis=1, keepdims=True)
    tokens = forecast.expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(forecast.errors[-1], missed * tokens, atol=1e-9)
    np.testing.assert_allclose(forecast.weight.sum(axis=0), 1)
    np.testing.assert_allclose(forecast.weight[-2] / forecast.weight[-1], 0.95)


@pytest.mark.parametrize("number", [12, 90])
def test_the_forecast_before_an_error_is_that_from_the_windows_until_then(number: int) -> None:
    windows = np.random.default_rng(4).poisson(30, (number, 2, 6)).astype(float)
    forecast = eq.forecast(windows)
    for error in (0, 5, forecast.num_errors - 1):
        until = number - forecast.num_errors + error
        then, whole = forecast.before(error), eq.forecast(windows[:until])
        assert (then.num_windows, then.num_errors) == (until, error)
        np.testing.assert_allclose(then.expected, whole.expected, rtol=1e-12)
        assert then.errors.shape == whole.errors[whole.num_errors - error :].shape
        np.testing.assert_allclose(then.errors, whole.errors[whole.num_errors - error :], rtol=1e-12, atol=1e-9)


def test_a_level_that_only_drifts_is_followed_and_one_in_noise_is_averaged() -> None:
    rng = np.random.default_rng(5)
    walk = np.exp(np.cumsum(rng.normal(0, 0.1, (40, 20, 16)), axis=0))
    noise = 1 + 0.2 * rng.random((40, 20, 16))

    def alpha_of(windows: Any) -> float:
        share, tokens = numba.scale(windows)
        sums, number = numba.look(share, tokens, np.array([39]))
        return smooth(sums[0], number[0], 16)[0]

    assert alpha_of(walk) > 0.8
    assert alpha_of(noise) < 0.3


@pytest.mark.parametrize(
    ("windows", "what"),
    [
        ([[[1, float("nan")]]], "windows is nan at window 0, layer 0, expert 1"),
        ([[[1, -2]]], "windows is -2.0"),
        ([1, 2], "windows has shape"),
        (np.zeros((0, 2, 3)), "empty"),
    ],
)
def test_windows_that_are_none_are_refused(windows: Any, what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        eq.forecast(windows)


@pytest.mark.parametrize("window", [[[1, 2]], [[1, 2, float("inf")]], [[[1, 2, 3]], [[1, 2, 3]]], None])
def test_a_window_that_does_not_follow_is_refused_and_the_forecast_stays(window: Any) -> None:
    forecast = eq.forecast([[[1, 2, 3]], [[3, 2, 1]]])
    before = forecast.digest
    with pytest.raises(InvalidInputError, match="window"):
        forecast.update(window)
    assert forecast.digest == before


CHILD = """
import numpy as np, equipoise as eq
windows = np.random.default_rng(7).poisson(np.random.default_rng(8).gamma(1, 50, (3, 24)), (70, 3, 24))
forecast = eq.forecast(windows * 0.37)
plan = eq.solve(eq.PlacementProblem(forecast, eq.Cluster(4, 8)))
less = eq.solve(eq.PlacementProblem(forecast.update(windows[3]), eq.Cluster(4, 8)), current=plan, max_transfers=4)
print(forecast.digest, *plan.placement.physical_to_logical.ravel(), *less.placement.physical_to_logical.ravel())
"""


@pytest.mark.slow
def test_another_process_and_a_generic_processor_forecast_and_plan_the_same_bits(tmp_path: Any) -> None:
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    said = {
        subprocess.run(
            [sys.executable, "-c", CHILD], env={**os.environ, **more}, check=True, capture_output=True, text=True
        ).stdout
        for more in ({}, {"PYTHONHASHSEED": "3"}, generic)
    }
    assert len(said) == 1
