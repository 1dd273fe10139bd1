"""What the environment says to a plug-in."""

from __future__ import annotations

import os

import pytest

from equipoise.engines.settings import Settings
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
    }
    assert Settings.from_environment("X", environment) == Settings(
        True, "plain-greedy", {"max_gap": 0.01, "effort": "fast"}, 2, ("a.json", "b.json")
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
