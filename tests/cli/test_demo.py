from __future__ import annotations

import json

import pytest

from quick import NAMES


def test_the_demo_says_that_its_load_is_generated_and_shows_before_and_after(run) -> None:
    result = run("demo")
    assert result.exit_code == 0
    assert "generated load (made up, not recorded)" in result.stdout
    for words in ("no balancing", "plain-greedy", "All 58 layers", "equipoise plan LOADS"):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\x1b" not in result.stdout


def test_json_has_the_rank_loads_of_the_layer_shown(run) -> None:
    report = json.loads(run("demo", "--json").stdout)
    before, greedy, best = report["contenders"]
    assert (before["name"], greedy["name"]) == ("no balancing", "plain-greedy")
    assert best["name"] in NAMES
    assert before["mean_balancedness"] < greedy["mean_balancedness"] <= best["mean_balancedness"]
    for row in report["contenders"]:
        assert len(row["rank_load"]) == 32
        assert sum(row["rank_load"]) == pytest.approx(sum(before["rank_load"]))
    assert "generated" in report["source"]
