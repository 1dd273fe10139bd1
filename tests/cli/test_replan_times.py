"""``equipoise replan --gpu``: microseconds before and after, and the plan in time that moves what that takes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq

GPU = ("--gpu", "20,12,4,0.06", "--tokens-per-rank", "4,400", "--top-k", 2)
ROUTED = (4 * 4 * 2, 400 * 4 * 2)


@pytest.fixture
def in_force(tmp_path: Path) -> Path:
    """Return a plan for another load than ``loads``."""
    problem = eq.PlacementProblem(np.random.default_rng(1).integers(1, 1000, (4, 16)), eq.Cluster(4, 6))
    path = tmp_path / "plan.json"
    eq.solve(problem, "plain-greedy").save(path)
    return path


def problem_of(loads: Path, cluster: eq.Cluster, routed: object = ROUTED) -> eq.PlacementProblem:
    load = json.loads(loads.read_text())["logical_count"]
    model = eq.LatencyModel(20, 12, 4, 0.06, source="as given")
    return eq.PlacementProblem(load, cluster, latency=model, routed_per_step=routed)


def test_the_plan_is_that_of_solve_and_what_was_in_force_is_measured_beside_it(
    run, loads: Path, in_force: Path, tmp_path: Path
) -> None:
    out = tmp_path / "next.json"
    result = run("replan", loads, "--current", in_force, *GPU, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    report, problem, held = json.loads(result.stdout), problem_of(loads, eq.Cluster(4, 6)), eq.Plan.load(in_force)
    plan = eq.solve(problem, current=held.placement)
    assert plan.time is not None
    assert eq.Plan.load(out).to_json() == plan.to_json()
    assert report["plan"] == json.loads(plan.to_json())
    assert report["tokens_per_rank"] == [4.0, 400.0]
    assert report["microseconds"] == plan.time.mean_max_rank_time.tolist()
    from equipoise.checker import check_time

    even = eq.Shares.even(held.placement)
    busy = problem.load.any(axis=1)  # layers without tokens are left out
    before = [check_time(problem, held.placement, even, size).max(axis=1)[busy].mean() for size in ROUTED]
    assert report["microseconds_in_force"] == pytest.approx(before)
    assert all(after <= now for after, now in zip(report["microseconds"], before, strict=True))
    assert report["migration"]["transfers"] == eq.count_transfers(held, plan).sum() > 0


def test_microseconds_transfers_and_the_plan_are_printed(run, loads: Path, in_force: Path) -> None:
    shown = run("replan", loads, "--current", in_force, *GPU).stdout
    assert shown.startswith("tokens a rank   in force, all active   planned")
    lines = shown.splitlines()
    assert lines[1].split()[0] == "4"
    assert lines[1].split()[-1].endswith("%")
    assert "replicas dormant" in shown
    assert "migration" in shown


def test_a_plan_in_time_is_measured_with_the_shares_that_it_has_in_force(run, loads: Path, tmp_path: Path) -> None:
    path, problem = tmp_path / "in_time.json", problem_of(loads, eq.Cluster(4, 6))
    held = eq.solve(problem)
    held.save(path)
    assert held.time is not None
    shown = run("replan", loads, "--current", path, *GPU).stdout.splitlines()
    assert shown[0].startswith("tokens a rank   in force, its shares   planned")
    report = json.loads(run("replan", loads, "--current", path, *GPU, "--json").stdout)
    assert report["microseconds_in_force"] == pytest.approx(held.time.mean_max_rank_time.tolist())
    assert report["migration"]["transfers"] == 0
    lost = run("replan", loads, "--current", path, *GPU, "--lost-ranks", 1).stdout
    assert lost.startswith("tokens a rank   in force, all active   planned")


def test_a_lost_rank_stays_empty_and_gets_no_tokens(run, loads: Path, in_force: Path) -> None:
    words = ("--lost-ranks", 2, "--json")
    report = json.loads(run("replan", loads, "--current", in_force, *GPU, *words).stdout)
    held = eq.Plan.load(in_force).placement
    problem = problem_of(loads, eq.Cluster(4, 6), tuple(size * 3 / 4 for size in ROUTED))
    assert report["plan"] == json.loads(eq.solve(problem, current=held, lost_ranks=[2]).to_json())
    assert report["plan"]["lost_ranks"] == [2]


def test_where_an_expert_has_no_slot_left_nothing_is_said_of_what_was_in_force(
    run, loads: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tight.json"
    eq.solve(eq.PlacementProblem(np.ones((4, 16)), eq.Cluster(4, 4))).save(path)
    words = ("--lost-ranks", 0, "--slots", 24)
    shown = run("replan", loads, "--current", path, *GPU, *words).stdout
    assert shown.splitlines()[1].split() == ["4", "-", shown.splitlines()[1].split()[2], "-"]
    report = json.loads(run("replan", loads, "--current", path, *GPU, *words, "--json").stdout)
    assert report["microseconds_in_force"] == [None, None]


def test_other_ranks_and_slots_can_be_planned_for(run, loads: Path, in_force: Path) -> None:
    words = ("--ranks", 5, "--slots", 25, "--json")
    report = json.loads(run("replan", loads, "--current", in_force, *GPU, *words).stdout)
    assert report["plan"]["cluster"]["num_ranks"] == 5
    assert report["plan"]["time"]["routed_per_step"] == [4 * 5 * 2, 400 * 5 * 2]


def test_a_page_of_the_plan_is_written(run, loads: Path, in_force: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "page.html"
    assert run("replan", loads, "--current", in_force, *GPU, "--report", page).exit_code == 0
    assert "us a layer at 32 routed tokens" in page.read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            (*GPU, "--max-transfers", 3),
            "--max-transfers is 3, and --gpu asks for a plan in microseconds, with which layers",
        ),
        ((*GPU, "--max-transfers-total", 3), "limit them with --max-layers or --min-gain, or leave out --gpu"),
        (("--tokens-per-rank", 4), "--tokens-per-rank is given without --gpu"),
        (("--gpu", "h200"), "--gpu needs batch sizes"),
        ((*GPU[:4], "--top-k", 17), "--top-k is 17, and the load is of 16 experts"),
        ((*GPU, "--nodes", 2, "--groups", 4, "--lost-ranks", 0, "--slots", 48), "leave out --groups or --gpu"),
    ],
)
def test_wrong_use_ends_with_a_sentence(run, loads: Path, in_force: Path, words, sentence: str) -> None:
    result = run("replan", loads, "--current", in_force, *words)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_layers_stay_that_gain_too_little(run, loads: Path, in_force: Path) -> None:
    current, problem = eq.Plan.load(in_force), problem_of(loads, eq.Cluster(4, 6))
    for words, budget in ((("--max-layers", 2), {"max_layers": 2}), (("--min-gain", 0.1), {"min_gain": 0.1})):
        report = json.loads(run("replan", loads, "--current", in_force, *GPU, *words, "--json").stdout)
        assert report["plan"] == json.loads(eq.solve(problem, current=current, **budget).to_json())
        tokens = json.loads(run("replan", loads, "--current", in_force, *words, "--json").stdout)
        assert tokens["plan"] == json.loads(eq.solve(problem.in_tokens, current=current, **budget).to_json())
