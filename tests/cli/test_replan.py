from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq


@pytest.fixture
def in_force(loads: Path, tmp_path: Path) -> Path:
    """Return a plan for another load than ``loads``."""
    rng = np.random.default_rng(1)
    problem = eq.PlacementProblem(rng.integers(1, 1000, (4, 16)), eq.Cluster(4, 5))
    path = tmp_path / "plan.json"
    eq.solve(problem, "plain-greedy").save(path)
    return path


def test_the_curve_is_printed_with_its_knee(run, loads: Path, in_force: Path) -> None:
    result = run("replan", loads, "--current", in_force, "--bytes-per-expert", 1000)
    assert result.exit_code == 0
    assert result.stdout.startswith("transfers a layer")
    assert "<- knee" in result.stdout
    assert "kB" in result.stdout


def test_a_limit_gives_a_plan_that_keeps_it(run, loads: Path, in_force: Path, tmp_path: Path) -> None:
    out = tmp_path / "next.json"
    result = run("replan", loads, "--current", in_force, "--max-transfers", 3, "--out", out)
    assert f"written to    {out}" in result.stdout
    moved = eq.count_transfers(eq.Plan.load(in_force).placement, eq.Plan.load(out).placement)
    assert 0 < moved.max() <= 3


def test_json_is_one_object(run, loads: Path, in_force: Path) -> None:
    report = json.loads(
        run("replan", loads, "--current", in_force, "--max-transfers-total", 5, "--lost-ranks", "", "--json").stdout
    )
    assert report["migration"]["transfers"] <= 5
    assert len(report["transfers"]) == len(report["mean_balancedness"])


def test_lost_ranks_end_up_empty(run, loads: Path, in_force: Path) -> None:
    result = run("replan", loads, "--current", in_force, "--lost-ranks", "3", "--max-transfers", 9, "--json")
    assert result.exit_code == 2
    assert "15 slots on the 3 ranks that are left cannot hold 16 logical experts" in result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--out", "next.json"), "say how much may move with --max-transfers"),
        (("--lost-ranks", "a"), "it must be ranks with commas between, such as 3,7"),
        (("--max-transfers", "-1"), "max_transfers is -1"),
    ],
)
def test_wrong_use_ends_with_a_sentence(run, loads: Path, in_force: Path, words, sentence: str) -> None:
    result = run("replan", loads, "--current", in_force, *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
