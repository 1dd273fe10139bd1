from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq
from equipoise.cli.contenders import strategies_to_compare
from quick import NAMES

SHAPE = ("--ranks", 4, "--slots", 20)


def test_no_balancing_comes_first_then_the_plain_greedy_then_every_strategy(run, loads: Path) -> None:
    report = json.loads(run("compare", loads, *SHAPE, "--json").stdout)
    names = [row["name"] for row in report["contenders"]]
    assert names[:2] == ["no balancing", "plain-greedy"]
    assert sorted(names[1:]) == sorted(NAMES)


def test_the_numbers_are_those_of_the_library(run, loads: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run("compare", loads, *SHAPE, "--json").stdout)["contenders"]}
    load = eq.load.read_load(loads).load
    for name in NAMES:
        plan = eq.solve(eq.PlacementProblem(load, eq.Cluster(4, 5)), name)
        assert rows[name]["mean_balancedness"] == plan.metrics.mean_balancedness
        assert rows[name]["max_gap"] == plan.certificate.max_gap
        assert rows[name]["seconds"] > 0
    in_order = eq.Placement(np.tile(np.arange(20) % 16, (4, 1)), 4, 16).rank_load(load)
    worst = min(1.0 if not row.any() else row.mean() / row.max() for row in in_order)
    assert rows["no balancing"]["worst_balancedness"] == pytest.approx(worst, rel=1e-12)
    assert rows["no balancing"]["seconds"] is None


def test_the_table_shows_every_contender_and_says_what_no_balancing_means(run, loads: Path) -> None:
    result = run("compare", loads, *SHAPE)
    assert result.exit_code == 0
    for words in ("no balancing", *NAMES, "balancedness", "gap to bound", "duplicates", "time", "experts in order"):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "…" not in result.stdout


def test_groups_are_kept_whole_by_the_strategies(run, loads: Path) -> None:
    result = run("compare", loads, *SHAPE, "--nodes", 2, "--groups", 4)
    assert "4 groups on 2 nodes" in result.stdout
    assert json.loads(run("compare", loads, *SHAPE, "--nodes", 2, "--groups", 4, "--json").stdout)["is_hierarchical"]


def test_every_slot_taken_and_one_rank_are_ordinary(run, loads: Path) -> None:
    for ranks, slots in ((4, 16), (1, 16), (16, 16), (1, 20)):
        assert run("compare", loads, "--ranks", ranks, "--slots", slots).exit_code == 0


def test_a_backend_asked_for_by_name_leaves_out_the_strategies_that_do_not_run_on_it() -> None:
    some, left_out = strategies_to_compare("reference")
    assert "pruned-restarts" in some
    assert {"joint-descent", "plain-greedy"} <= set(left_out)
    every, none = strategies_to_compare("numba")
    assert (sorted(every), every[0], none) == (sorted([*some, *left_out]), "plain-greedy", [])


@pytest.mark.parametrize("command", ["plan", "compare", "slots"])
def test_a_backend_that_cannot_run_here_is_refused_in_one_sentence(
    run, loads: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    result = run(command, loads, *(SHAPE if command != "slots" else SHAPE[:2]), "--backend", "torch")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: backend 'torch' needs torch, not installed here; pip install 'equipoise[torch]'.\n"


def test_shares_are_compared_now_and_after_a_drift(run, loads: Path) -> None:
    report = json.loads(run("compare", loads, *SHAPE, "--shares", "--drift", 0.3, "--json").stdout)
    rows = {row["name"]: row for row in report["shares"]}
    assert set(rows) == {"no balancing", *NAMES, "connected"}
    load = eq.load.read_load(loads).load
    placement = eq.solve(eq.PlacementProblem(load, eq.Cluster(4, 5)), connected=True).placement
    assert rows["connected"]["best_shares_after_drift"] == eq.flexibility(placement, load, 0.3).mean()
    assert all(row["best_shares"] >= row["even_shares"] - 1e-9 for row in rows.values())
    table = run("compare", loads, *SHAPE, "--shares").stdout
    assert "after 20% drift" in table
    assert max(map(len, table.splitlines())) <= 88


def test_without_being_asked_nothing_is_said_of_shares(run, loads: Path) -> None:
    assert "shares" not in json.loads(run("compare", loads, *SHAPE, "--json").stdout)
