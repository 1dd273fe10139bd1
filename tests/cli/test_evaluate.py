"""A placement that exists, measured on a load: what it is worth, and the exit code for CI."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq


@pytest.fixture
def plan(run, loads: Path, tmp_path: Path) -> Path:
    out = tmp_path / "plan.json"
    assert run("plan", loads, "--ranks", 4, "--slots", 20, "--out", out).exit_code == 0
    return out


def test_a_plan_is_worth_on_its_own_load_what_it_says(run, plan: Path, loads: Path) -> None:
    result = run("evaluate", loads, "--placement", plan, "--json")
    assert result.exit_code == 0
    told, made = json.loads(result.stdout)["contenders"][0], eq.Plan.load(plan)
    assert told["mean_balancedness"] == pytest.approx(made.metrics.mean_balancedness, abs=1e-12)
    assert told["num_duplicates"] == int(made.metrics.num_duplicates.sum())


def test_maps_of_engines_are_evaluated_too(run, plan: Path, loads: Path, tmp_path: Path) -> None:
    for engine, name in (("sglang", "map.json"), ("vllm-ascend", "ascend.json"), ("tensorrt-llm", "x.yaml")):
        out = tmp_path / name
        assert run("export", plan, "--engine", engine, "--out", out).exit_code == 0
        result = run("evaluate", loads, "--placement", out, "--ranks", 4, "--against", plan)
        assert result.exit_code == 0, result.stderr
        assert f"{name} and plan.json are the same in every slot" in result.stdout
        assert "no balancing" in result.stdout


def test_steps_are_realised(run, plan: Path, tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(0, 9, (5, 4, 16))
    np.save(tmp_path / "steps.npy", steps)
    result = run("evaluate", tmp_path / "steps.npy", "--placement", plan)
    assert "5 steps summed" in result.stdout
    assert "realised" in result.stdout


def test_what_is_missed_ends_with_one(run, plan: Path, loads: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    assert run("plan", loads, "--ranks", 4, "--slots", 20, "--strategy", "plain-greedy", "--out", other).exit_code == 0
    assert run("evaluate", loads, "--placement", plan, "--balancedness", 0.5, "--max-gap", 0.9).exit_code == 0
    for words, said in (
        (("--balancedness", 1), "below the --balancedness of 1"),
        (("--max-gap", 0), "above the --max-gap of 0 %"),
        (("--against", other), "slots hold other experts than in --against"),
    ):
        result = run("evaluate", loads, "--placement", plan, *words)
        assert result.exit_code == 1
        assert said in result.stderr


def test_what_cannot_be_compared_is_refused(run, plan: Path, loads: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    assert run("plan", loads, "--ranks", 4, "--slots", 24, "--out", other).exit_code == 0
    for words in (("--placement", loads, "--ranks", 4), ("--placement", plan, "--against", other)):
        result = run("evaluate", loads, *words)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1


def test_a_plan_round_lost_ranks_is_measured_on_those_left(run, plan: Path, loads: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost.json"
    words = ("--current", plan, "--lost-ranks", 3, "--slots", 24, "--max-transfers", 16, "--out", lost)
    assert run("replan", loads, *words).exit_code == 0
    result = run("evaluate", loads, "--placement", lost, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)["contenders"][0]
    assert told["mean_balancedness"] == pytest.approx(eq.Plan.load(lost).metrics.mean_balancedness)
