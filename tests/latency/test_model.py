"""What tokens cost in time: the formula, its expectation, presets, and constants fitted to measured times."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise import LatencyModel
from equipoise.errors import InvalidInputError, UnknownNameError
from equipoise.latency import GPUS, PHASES
from equipoise.latency.reference import expected_slot_time
from real_loads import real_load

H200 = LatencyModel(fixed=19.6, floor=11.7, base=4.2, per_token=0.063)
PHASE_OF = {"generation": "decode", "context": "prefill"}


def table_of(path: Path, gpu: str, phase: str) -> dict[str, np.ndarray]:
    """Return the measured rows of one GPU and phase as columns."""
    with path.open() as file:
        rows = [
            row for row in csv.DictReader(file) if row["gpu"].split("_")[0] == gpu and PHASE_OF[row["phase"]] == phase
        ]
    names = ("active_experts", "tokens_per_active_expert", "microseconds")
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def test_a_rank_takes_what_is_fixed_and_the_roofline_of_each_active_slot() -> None:
    assert H200.rank_time([[0, 0], [1, 0], [1, 1000]]) == pytest.approx([19.6, 31.3, 19.6 + 11.7 + 4.2 + 63.0])


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 40), st.floats(0, 20), st.sampled_from([0.0, 1e-4, 0.01, 0.063, 1.0, 20.0]),
    st.floats(1e-9, 3e4),
)  # fmt: skip
def test_the_expected_time_is_the_sum_over_all_counts(floor: float, base: float, per_token: float, mean: float) -> None:
    model = LatencyModel(0, floor, base, per_token)
    exact = expected_slot_time(mean, floor, base, per_token)
    assert float(model.expected_rank_time([mean])) == pytest.approx(exact, rel=1e-7, abs=1e-300)


def test_no_token_costs_nothing_and_every_shape_is_taken() -> None:
    assert H200.expected_rank_time(np.zeros((2, 3, 4))).tolist() == [[19.6] * 3] * 2
    assert H200.expected_slot_time(np.full((2, 5), 1e9)) == pytest.approx(np.full((2, 5), 4.2 + 0.063e9))


def test_the_sampled_mean_comes_to_the_expected_time() -> None:
    mean = np.array([0.2, 3.0, 110.0, 120.0, 400.0])
    tokens = np.random.default_rng(0).poisson(mean, (40_000, 5))
    assert H200.rank_time(tokens).mean() == pytest.approx(float(H200.expected_rank_time(mean)), rel=2e-3)


@pytest.mark.parametrize(
    "constants", [(0, 0, 0, 0), (0, 5, 0, 0), (3, 0, 0, 1), (1e12, 1e12, 1e12, 1e12), (0, 1e-9, 0, 1e-12)]
)
def test_extreme_constants_have_finite_times(constants: tuple[float, ...]) -> None:
    times = LatencyModel(*constants).expected_rank_time([[0, 1e-6, 1, 1e3, 1e9]])
    assert np.isfinite(times).all()


@pytest.mark.parametrize("name", ["fixed", "floor", "base", "per_token"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 2e12, "x", None])
def test_a_constant_that_is_no_time_is_refused_by_name(name: str, value: object) -> None:
    constants: dict[str, object] = {"fixed": 1, "floor": 1, "base": 1, "per_token": 1}
    with pytest.raises(InvalidInputError, match=name):
        LatencyModel(**{**constants, name: value})  # type: ignore[arg-type]


def test_presets_say_where_they_come_from_and_how_far_they_are_off() -> None:
    for gpu in GPUS:
        for phase in PHASES:
            model = LatencyModel.preset(gpu, phase)
            assert "aiconfigurator" in model.source
            assert model.error is not None
            assert not model.is_estimate


def test_another_shape_is_scaled_by_bytes_and_multiplications_and_says_so() -> None:
    measured = LatencyModel.preset("h200")
    half = LatencyModel.preset("h200", hidden=3584)
    wide = LatencyModel.preset("h200", bytes_per_weight=2)
    assert half.is_estimate
    assert half.source.startswith("an estimate")
    assert half.error is None
    assert half.constants == pytest.approx((measured.fixed, *(c / 2 for c in measured.constants[1:])))
    assert wide.constants == pytest.approx((measured.fixed, 2 * measured.floor, 2 * measured.base, measured.per_token))
    assert LatencyModel.preset("h200", hidden=7168, intermediate=2048, bytes_per_weight=1) == measured


@pytest.mark.parametrize("wrong", [{"gpu": "a100"}, {"phase": "x"}, {"shape": "y"}, {"gpu": 3}])
def test_an_unknown_name_is_refused_with_those_that_are_known(wrong: dict[str, str]) -> None:
    with pytest.raises(UnknownNameError, match="one of"):
        LatencyModel.preset(**{"gpu": "h200", **wrong})


def test_a_fit_finds_the_constants_of_slots_with_different_tokens() -> None:
    tokens = np.random.default_rng(1).integers(0, 600, (200, 8)) * (np.random.default_rng(2).random((200, 8)) < 0.6)
    model = LatencyModel.fit(tokens, H200.rank_time(tokens))
    assert model.constants == pytest.approx(H200.constants, rel=0.1)
    assert model.error is not None
    assert model.error < 0.01


def test_a_few_odd_measurements_do_not_bend_a_fit() -> None:
    tokens = np.random.default_rng(1).integers(0, 600, (200, 8)) * (np.random.default_rng(2).random((200, 8)) < 0.6)
    times = H200.rank_time(tokens)
    times[::20] *= 3
    assert LatencyModel.fit(tokens, times).constants == pytest.approx(H200.constants, rel=0.15)


@pytest.mark.parametrize("factors", [(0.01,), (0.1, 5, 20), (0.3, 3), (100,)])
@pytest.mark.parametrize("gpu", GPUS)
def test_times_that_are_far_too_short_or_too_long_do_not_bend_a_fit(gpu: str, factors: tuple[float, ...]) -> None:
    table = table_of(real_load("moe_kernel_latency.csv"), gpu, "decode")
    rng = np.random.default_rng(len(factors))
    odd = rng.choice(len(table["microseconds"]), len(table["microseconds"]) // 8, replace=False)
    times = table["microseconds"].copy()
    times[odd] *= rng.choice(factors, len(odd))
    clean, bent = LatencyModel.fit(table), LatencyModel.fit({**table, "microseconds": times})
    off = np.abs(bent.rank_time(slots_of(table)) / clean.rank_time(slots_of(table)) - 1)
    assert np.median(off) < 0.02
    assert off.max() < 0.15


def slots_of(table: dict[str, np.ndarray]) -> np.ndarray:
    """Return the tokens of each slot [samples, slots]."""
    active, tokens = table["active_experts"], table["tokens_per_active_expert"]
    return np.where(np.arange(int(active.max())) < active[:, None], tokens[:, None], 0)


@pytest.mark.parametrize(
    ("tokens", "times", "words"),
    [
        ([[1, 2]], [3.0], "at least 4"), ([[1]] * 4, [1.0] * 3, "3 entries"), ([[1]] * 4, [0.0] * 4, "without time"),
        ([1, 2], [1, 2], "samples, slots"), ([[-1]] * 4, [1] * 4, "not negative"), ([[1]] * 4, None, "microseconds"),
        ({"microseconds": [1]}, None, "no column"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_fitted_is_refused(tokens: object, times: object, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        LatencyModel.fit(tokens, times)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("gpu", GPUS)
def test_presets_are_what_fit_makes_of_the_published_table(gpu: str, phase: str) -> None:
    table = table_of(real_load("moe_kernel_latency.csv"), gpu, phase)
    model, preset = LatencyModel.fit(table), LatencyModel.preset(gpu, phase)
    assert model.constants == pytest.approx(preset.constants, rel=2e-3)
    assert model.error == pytest.approx(preset.error, abs=1e-3)


@pytest.mark.parametrize("gpu", GPUS)
def test_decode_times_are_met_within_four_percent(gpu: str) -> None:
    table = table_of(real_load("moe_kernel_latency.csv"), gpu, "decode")
    model, times = LatencyModel.preset(gpu), table["microseconds"]
    active = np.maximum(model.floor, model.base + model.per_token * table["tokens_per_active_expert"])
    assert np.median(np.abs((model.fixed + table["active_experts"] * active) / times - 1)) < 0.04
