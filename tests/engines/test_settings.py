"""What the environment says to a plug-in."""

from __future__ import annotations

import os

import pytest

from equipoise.engines.settings import VARIABLES, Settings
from equipoise.errors import InvalidInputError, UnknownNameError
from equipoise.threads import num_threads


def test_nothing_set_means_the_defaults():
    assert Settings.from_environment("EQUIPOISE_VLLM", {}) == Settings()
    assert Settings.from_environment("EQUIPOISE_VLLM", {"EQUIPOISE_VLLM": " ", "EQUIPOISE_VLLM_PLAN": ""}) == Settings()


def test_every_variable_is_read():
    environment = {
        "X": "1",
        "X_STRATEGY": "plain-greedy",
        "X_MAX_GAP": "0.01",
        "X_EFFORT": "fast",
        "X_THREADS": "2",
        "X_PLAN": os.pathsep.join(("a.json", "b.json")),
        "X_MAX_TRANSFERS": "16",
        "X_MAX_TRANSFERS_TOTAL": "0",
        "X_MAX_LAYERS": "9",
        "X_MIN_GAIN": "0.01",
        "X_HIERARCHY": "global",
        "X_RECORD": "loads",
        "X_RECORD_MB": "10",
        "X_METRICS": "1",
        "X_WINDOWS": "16",
        "X_SHARES": "1",
    }
    assert set(environment) == {"X" + suffix for suffix in VARIABLES}
    assert Settings.from_environment("X", environment) == Settings(
        True,
        "plain-greedy",
        {"max_gap": 0.01, "effort": "fast"},
        2,
        ("a.json", "b.json"),
        16,
        0,
        9,
        0.01,
        "global",
        "loads",
        10,
        True,
        16,
        True,
    )
    assert not Settings.from_environment("X", {"X": "0"}).enabled


@pytest.mark.parametrize(
    ("variable", "value"),
    [("X", "no"), ("X", "01"), ("X_MAX_GAP", "-1"), ("X_MAX_GAP", "nan"), ("X_MAX_GAP", "little"), ("X_THREADS", "0")],
)
def test_a_value_that_breaks_its_rule_is_named(variable, value):
    with pytest.raises(InvalidInputError, match=f"{variable} is '{value}'; "):
        Settings.from_environment("X", {variable: value})


@pytest.mark.parametrize("text", ["2147483648", "1" + 30 * "0"])
def test_more_threads_than_there_are_processors_are_as_many_as_there_are(text):
    settings = Settings.from_environment("X", {"X_THREADS": text})
    assert num_threads(settings.threads) == num_threads()


@pytest.mark.parametrize("text", ["0", "-1", "True", "1.5", "1e3", "many", 5000 * "9"])
def test_a_number_of_threads_that_is_none_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"X_THREADS is .*; it must be a whole number of at least 1"):
        Settings.from_environment("X", {"X_THREADS": text})


def test_a_strategy_that_does_not_exist_is_refused_when_the_engine_starts():
    with pytest.raises(UnknownNameError, match="'nearest'"):
        Settings(strategy="nearest").check()
    Settings().check()


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("EQUIPOISE_VLLM_THREAD", "EQUIPOISE_VLLM_THREADS"),
        ("EQUIPOISE_VLLM_MAX_TRANSFER", "EQUIPOISE_VLLM_MAX_TRANSFERS"),
        ("EQUIPOISE_VLLM_MAXGAP", "EQUIPOISE_VLLM_MAX_GAP"),
        ("EQUIPOISE_VLLM_min_gain", "EQUIPOISE_VLLM_MIN_GAIN"),
        ("EQUIPOISE_VLLMPLAN", "EQUIPOISE_VLLM_PLAN"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(variable, nearest):
    with pytest.raises(InvalidInputError, match=f"^{variable} is no variable of this plug-in; {nearest} is"):
        Settings.from_environment("EQUIPOISE_VLLM", {variable: "1"})


def test_the_variables_of_another_plug_in_are_its_own():
    environment = {"EQUIPOISE_VLLM_ASCEND": "1", "EQUIPOISE_VLLM_ASCEND_THREAD": "1", "EQUIPOISE_SGLANG_X": "1"}
    assert Settings.from_environment("EQUIPOISE_VLLM", environment) == Settings()
    with pytest.raises(InvalidInputError, match="EQUIPOISE_VLLM_ASCEND_THREADS is"):
        Settings.from_environment("EQUIPOISE_VLLM_ASCEND", environment)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MAX_TRANSFERS", "-1"), ("MAX_LAYERS", "2.5"), ("MIN_GAIN", "inf"), ("HIERARCHY", "Global"), ("RECORD_MB", "0")],
)
def test_a_limit_that_breaks_its_rule_is_named(variable, value):
    with pytest.raises(InvalidInputError, match=f"X_{variable} is '{value}'; it must be"):
        Settings.from_environment("X", {f"X_{variable}": value})
