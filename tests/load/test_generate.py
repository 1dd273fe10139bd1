from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.errors import InvalidInputError, UnknownNameError
from equipoise.load import PRESETS, LoadPreset, LoadStatistics, drift_load, generate_load, read_load
from real_loads import real_load

SMALL = replace(PRESETS["deepseek-v3"], num_layers=6)
SEEDS = range(8)

made = cache(generate_load)  # a whole model takes a while to make, and many tests look at the same ones


@pytest.mark.parametrize(
    ("name", "shape", "first_id"),
    [("deepseek-v3", (58, 256), 3), ("qwen3-235b", (94, 128), 0), ("kimi-k2", (60, 384), 1)],
)
def test_a_preset_has_the_shape_of_its_model(name: str, shape: tuple[int, int], first_id: int) -> None:
    load = generate_load(name, tokens_per_window=1000)
    assert load.load.shape == shape
    assert load.layer_ids == tuple(range(first_id, first_id + shape[0]))
    assert load.source == f"generated: {name}, seed 0"


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_hottest_expert_stands_4_to_14_times_above_the_mean(name: str) -> None:
    for seed in SEEDS:
        skew = made(name, seed=seed).skew
        assert skew.min() >= 4
        assert skew.max() <= 14


@pytest.mark.parametrize("name", ["deepseek-v3", "kimi-k2"])
def test_the_hottest_expert_of_most_layers_receives_2_to_3_percent(name: str) -> None:
    for seed in SEEDS:
        load = made(name, seed=seed)
        share = load.load.max(axis=1) / load.tokens_per_layer
        assert 0.02 < np.median(share) < 0.03
        assert ((share > 0.02) & (share < 0.03)).mean() > 0.4


@pytest.mark.parametrize("name", list(PRESETS))
def test_one_group_of_32_experts_is_hot_in_every_layer(name: str) -> None:
    for seed in SEEDS:
        load = made(name, seed=seed).load
        group = load.reshape(len(load), -1, 32).mean(axis=2) / load.mean(axis=1, keepdims=True)
        hot = group[:, np.argmax(group.sum(axis=0))]
        assert ((hot >= 1.5) & (hot <= 2)).all()


@pytest.mark.parametrize(("name", "low", "high"), [("deepseek-v3", 0.56, 0.86), ("kimi-k2", 0.56, 0.86)])
def test_the_body_is_lognormal_with_the_presets_sigma(name: str, low: float, high: float) -> None:
    for seed in SEEDS:
        body = np.sort(np.log(made(name, seed=seed).load), axis=1)
        experts = body.shape[1]
        # 0.31 and 0.69 of a normal lie half a sigma below and above its middle; the top and the hot group lie outside.
        sigma = body[:, round(0.6915 * experts)] - body[:, round(0.3085 * experts)]
        assert low < np.median(sigma) < high


def test_qwen_spreads_over_orders_of_magnitude_and_leaves_1_to_2_percent_unused() -> None:
    for seed in SEEDS:
        load = made("qwen3-235b", seed=seed).load
        assert 0.01 <= (load == 0).mean() <= 0.02
        assert 2.2 < np.median([np.log(row[row > 0]).std() for row in load]) < 2.8


def test_experts_in_order_leave_one_rank_of_32_with_more_than_twice_the_mean() -> None:
    for seed in SEEDS:
        rank_load = made("deepseek-v3", seed=seed).load.reshape(58, 32, 8).sum(axis=2)
        assert 2.1 < (rank_load.max(axis=1) / rank_load.mean(axis=1)).mean() < 2.9


def test_generated_loads_resemble_the_recorded_ones() -> None:
    """Per layer, in the middle and at both ends: within the range that two real runs and their spread suggest."""
    generated = generate_load().load
    for name in ("deepseek_v3_prefill_in1024.json", "deepseek_v3_decode_in1000out1000.json"):
        real = read_load(real_load(name)).load[3:]
        for trait in (
            lambda load: load.max(axis=1) / load.mean(axis=1),
            lambda load: np.log(load).std(axis=1),
            lambda load: np.sort(load, axis=1)[:, -10] / load.mean(axis=1),
            lambda load: np.median(load, axis=1) / load.mean(axis=1),
            lambda load: load.reshape(58, 32, 8).sum(axis=2).max(axis=1) / load.sum(axis=1) * 32,
        ):
            assert 0.7 < np.median(trait(generated)) / np.median(trait(real)) < 1.4


def test_every_layer_of_every_window_holds_the_tokens_asked_for() -> None:
    load = generate_load(SMALL, num_windows=3, tokens_per_window=500)
    assert (load.tokens_per_expert.sum(axis=2) == 500 * 8).all()
    assert (load.tokens_per_expert == np.floor(load.tokens_per_expert)).all()


def test_the_first_windows_do_not_depend_on_how_many_follow() -> None:
    few, many = generate_load(SMALL, num_windows=2), generate_load(SMALL, num_windows=5)
    assert np.array_equal(few.tokens_per_expert, many.tokens_per_expert[:2])


def test_drift_is_a_random_walk_in_log_space() -> None:
    logs = np.log(generate_load(SMALL, num_windows=17, drift=0.1, tokens_per_window=1 << 30).tokens_per_expert)
    step = logs[1:] - logs[:-1]
    assert step.std() == pytest.approx(0.1, rel=0.05)
    assert (logs[16] - logs[0]).std() == pytest.approx(0.4, rel=0.1)  # sqrt(16) steps apart


def test_without_drift_windows_differ_by_sampling_alone() -> None:
    first, second = generate_load(SMALL, num_windows=2, drift=0.0).tokens_per_expert
    assert not np.array_equal(first, second)
    assert (np.abs(first - second) < 8 * np.sqrt(first + second + 1)).all()


def test_seeds_differ_and_repeat() -> None:
    assert np.array_equal(generate_load(SMALL, seed=5).load, generate_load(SMALL, seed=5).load)
    assert not np.array_equal(generate_load(SMALL, seed=5).load, generate_load(SMALL, seed=6).load)


def test_global_random_state_is_neither_read_nor_written() -> None:
    np.random.seed(1)  # noqa: NPY002  # the global state is what is tested
    first, before = generate_load(SMALL).load, np.random.get_state()[1].tolist()  # noqa: NPY002
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(generate_load(SMALL).load, first)


def test_another_process_makes_the_same_bits() -> None:
    program = (
        "import hashlib; from equipoise.load import *;"
        "a = generate_load('kimi-k2', num_windows=2, seed=3); b = drift_load(a, 0.3, seed=4);"
        "print(hashlib.sha256(a.tokens_per_expert.tobytes() + b.load.tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "77"}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    here = generate_load("kimi-k2", num_windows=2, seed=3)
    content = here.tokens_per_expert.tobytes() + drift_load(here, 0.3, seed=4).load.tobytes()
    assert told.stdout.strip() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_windows": 0}, "num_windows is 0; it must be a whole number of at least 1"),
        ({"num_windows": 1.5}, "num_windows is 1.5"),
        ({"num_windows": True}, "num_windows is True"),
        ({"tokens_per_window": 0}, "tokens_per_window is 0"),
        ({"tokens_per_window": 1 << 60}, "float64 counts to"),
        ({"seed": -1}, "seed is -1; it must be a whole number of at least 0"),
        ({"seed": None}, "seed is None"),
        ({"drift": -0.1}, "drift is -0.1; it must be a number from 0 to 10"),
        ({"drift": float("nan")}, "drift is nan"),
        ({"drift": "x"}, "drift is 'x'"),
    ],
)
def test_an_argument_out_of_range_gets_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        generate_load(SMALL, **arguments)


def test_an_unknown_preset_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(
        UnknownNameError, match="no preset 'gpt'; the presets are 'deepseek-v3', 'qwen3-235b', 'kimi-k2'"
    ):
        generate_load("gpt")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_logical_experts": 96}, "96 experts do not form four or more groups of 32"),
        ({"group_size": 60}, "256 experts do not form four or more groups of 60"),
        ({"sigma": (0.9, 0.5)}, "two ascending numbers"),
        ({"hottest_to_mean": 40.0}, "hottest_to_mean is 40.0"),
        ({"unused": 0.5}, "unused is 0.5"),
    ],
)
def test_a_preset_that_breaks_a_rule_gets_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        replace(SMALL, **changes)


def test_a_preset_of_ones_own_is_taken() -> None:
    tiny = LoadPreset("tiny", 2, 64, 4, sigma=(0.5, 0.5), hottest_to_mean=5.0, group_size=16)
    assert generate_load(tiny, tokens_per_window=10).load.sum(axis=1).tolist() == [40, 40]


@given(
    st.lists(st.lists(st.integers(0, 10**6), min_size=4, max_size=4), min_size=1, max_size=3),
    st.floats(0, 3),
    st.integers(0, 2**40),
)
@settings(max_examples=50)
def test_drift_keeps_totals_and_wakes_no_expert(rows: list[list[int]], sigma: float, seed: int) -> None:
    moved = drift_load(rows, sigma, seed)
    assert moved.tokens_per_layer.tolist() == [sum(row) for row in rows]
    assert (moved.load[np.array(rows) == 0] == 0).all()
    assert np.array_equal(moved.load, drift_load(rows, sigma, seed).load)


def test_drift_moves_the_log_of_a_load_by_sigma() -> None:
    load = np.full((20, 256), 1 << 30)
    moved = np.log(drift_load(load, 0.5, seed=2).load)
    assert (moved - moved.mean(axis=1, keepdims=True)).std() == pytest.approx(0.5, rel=0.05)


def test_drift_keeps_layer_ids_and_says_what_was_done() -> None:
    moved = drift_load(LoadStatistics([[[5, 5]], [[1, 0]]], "recorder", (7,)), 0.25, seed=3)
    assert (moved.source, moved.layer_ids, moved.num_windows) == ("recorder, drifted by 0.25 with seed 3", (7,), 1)


@pytest.mark.parametrize(
    ("load", "sentence"),
    [
        ([[1.0, 0.5]], "load is 0.5 at layer 0, expert 1; drift samples whole tokens"),
        ([[1e18, 0.0]], "layer 0 sums to 1e.18; whole tokens can be sampled below"),
        ([[1, -1]], "load is -1.0"),
    ],
)
def test_a_load_that_cannot_drift_gets_a_sentence(load: Any, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        drift_load(load, 0.1)


def test_a_seed_gives_the_load_that_it_gave_under_other_numpys() -> None:
    """The digest is that of numpy 1.26.4, 2.0.2, 2.4.0 and 2.4.6; another one is a change that the changelog names."""
    first = generate_load("deepseek-v3", num_windows=2, seed=3)
    content = first.tokens_per_expert.tobytes() + drift_load(first, 0.3, seed=4).load.tobytes()
    content += generate_load("qwen3-235b", seed=1).load.tobytes()
    assert hashlib.sha256(content).hexdigest().startswith("66ad50e6d790f917")
