"""Ranks that a plan was made round stay lost, until they are named as restored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq
from equipoise.engines.formats import PLACEMENT_FORMATS, read_placement
from equipoise.errors import FileFormatError, InvalidInputError


@pytest.fixture
def lost(run, loads: Path, tmp_path: Path) -> Path:
    """Return a plan that was made when rank 2 of 4 was gone."""
    first, out = tmp_path / "first.json", tmp_path / "lost.json"
    assert run("plan", loads, "--ranks", 4, "--slots", 24, "--out", first).exit_code == 0
    result = run("replan", loads, "--current", first, "--lost-ranks", 2, "--max-transfers", 16, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out


def held_by(path: Path, rank: int) -> int:
    plan = eq.Plan.load(path)
    slots = plan.placement.physical_to_logical.reshape(plan.placement.num_layers, plan.cluster.num_ranks, -1)
    return int((slots[:, rank] >= 0).sum())


def test_a_plan_records_the_ranks_that_were_lost(lost: Path) -> None:
    plan = eq.Plan.load(lost)
    assert plan.lost_ranks == (2,)
    assert "rank 2: left empty, by a re-plan from this one too" in plan.summary()


def test_a_replan_leaves_them_empty_and_says_so(run, lost: Path, loads: Path, tmp_path: Path) -> None:
    out = tmp_path / "next.json"
    result = run("replan", loads, "--current", lost, "--max-transfers", 16, "--out", out)
    assert result.exit_code == 0
    assert "records rank 2 as lost; name those that are back with --restored-ranks" in result.stderr
    assert (held_by(out, 2), eq.Plan.load(out).lost_ranks) == (0, (2,))


def test_a_restored_rank_is_used_again(run, lost: Path, loads: Path, tmp_path: Path) -> None:
    out = tmp_path / "next.json"
    words = ("--current", lost, "--restored-ranks", 2, "--max-transfers", 16, "--out", out)
    assert run("replan", loads, *words).exit_code == 0
    assert held_by(out, 2) > 0
    assert eq.Plan.load(out).lost_ranks == ()


@pytest.mark.parametrize(
    "words", [("--restored-ranks", 1), ("--restored-ranks", "x"), ("--restored-ranks", 2, "--lost-ranks", 2)]
)
def test_only_what_is_lost_can_be_restored(run, lost: Path, loads: Path, words: tuple[object, ...]) -> None:
    result = run("replan", loads, "--current", lost, *words)
    assert result.exit_code == 2
    assert "--restored-ranks" in result.stderr


def test_the_library_remembers_as_the_command_does(lost: Path) -> None:
    plan = eq.Plan.load(lost)
    problem = eq.PlacementProblem(np.ones((4, 16)), plan.cluster)
    for limits in ({}, {"max_transfers": 4}):
        assert eq.solve(problem, current=plan, **limits).lost_ranks == (2,)
        assert eq.solve(problem, current=plan, restored_ranks=[2], **limits).lost_ranks == ()
    assert eq.frontier(problem, plan).balancedness[0, -1] <= 1
    with pytest.raises(InvalidInputError, match="restored_ranks names 0; what is in force records rank 2 as lost"):
        eq.solve(problem, current=plan, restored_ranks=[0])


@pytest.mark.parametrize("changed", [[0], [5], [2, 2], "x", [None], [[2]]])
def test_a_plan_that_contradicts_itself_on_lost_ranks_is_refused(lost: Path, changed: object) -> None:
    document = json.loads(lost.read_text())
    document["lost_ranks"] = changed
    with pytest.raises(FileFormatError, match="lost_ranks"):
        eq.Plan.from_json(json.dumps(document))


@pytest.mark.parametrize("engine", PLACEMENT_FORMATS)
def test_an_export_says_that_slots_are_empty_or_refuses_with_a_way_out(
    run, lost: Path, tmp_path: Path, engine: str
) -> None:
    out = tmp_path / {
        "sglang-pt": "map.pt",
        "hygon": "map.pt",
        "omni-infer": "map.npy",
        "tensorrt-llm": "map.yaml",
    }.get(engine, "map.json")
    result = run("export", lost, "--engine", engine, "--out", out)
    if PLACEMENT_FORMATS[engine].says_empty:
        assert result.exit_code == 0
        again = read_placement(out)
        assert again is not None
        assert np.array_equal(again.physical_to_logical, eq.Plan.load(lost).placement.physical_to_logical)
    else:
        assert result.exit_code == 2
        assert "leaves the slots of rank 2 is lost empty" in result.stderr or "rank 2" in result.stderr
        assert "equipoise plan --ranks 3" in result.stderr
        assert not out.exists()
