"""What is wrong is said in the options of the command that was typed, and what is right is kept to the end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise.engines.formats import PLACEMENT_FORMATS, read_placement

EXTENSION = {"tensorrt-llm": "yaml", "omni-infer": "npy", "deepseek": "pt", "sglang-pt": "pt", "hygon": "pt"}


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Return a load whose layers are 3, 4, 5 and 7 of a model."""
    counts = np.random.default_rng(1).integers(1, 900, (4, 16))
    np.savez(tmp_path / "named.npz", counts=counts, layer_ids=[3, 4, 5, 7])
    return tmp_path / "named.npz"


@pytest.fixture
def plan_file(run, loads: Path, tmp_path: Path) -> Path:
    """Return a plan for 24 slots on 4 ranks."""
    assert run("plan", loads, "--ranks", 4, "--slots", 24, "--out", tmp_path / "p.json").exit_code == 0
    return tmp_path / "p.json"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("plan", "--shares", "odd"), "--shares is 'odd'"),
        (("plan", "--forecast", "--window", 0), "--window is 0"),
        (("plan", "--gpu", "b300", "--tokens-per-rank", 4), "--gpu is 'b300'"),
        (("plan", "--gpu", "h100", "--tokens-per-rank", "nan"), "--tokens-per-rank is 'nan'"),
        (("plan", "--gpu", "1,2,3,-4", "--tokens-per-rank", 4), "--gpu is '1,2,3,-4'"),
        (
            ("plan", "--gpu", "h100", "--tokens-per-rank", 4, "--top-k", 99),
            "--top-k is 99, and the load is of 16 experts",
        ),
        (("compare", "--shares", "--drift", 5), "--drift is 5.0"),
        (("compare", "--drift", 0.1), "--drift is given without --shares"),
        (("replay", "--every", 0), "--every is 0"),
        (("replay", "--planner", "foo"), "--planner is 'foo'"),
        (("replay", "--dispatch", "vllm", "--top-k", 0), "--top-k is 0"),
        (("replay", "--links", "0,0", "--bytes-per-expert", 5), "--links is 0.0"),
    ],
)
def test_errors_name_the_option_that_was_typed(run, tmp_path: Path, words: tuple[object, ...], sentence: str) -> None:
    np.save(tmp_path / "steps.npy", np.random.default_rng(0).poisson(20, (6, 2, 16)))
    result = run(words[0], tmp_path / "steps.npy", "--ranks", 4, "--slots", 20, *words[1:])
    assert (result.exit_code, result.stderr.splitlines()[-1].startswith(f"error: {sentence}")) == (2, True), (
        result.stderr
    )


def test_a_format_is_named_by_the_option_of_each_command(run, plan_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert "error: --engine is 'foo'" in run("export", plan_file, "--engine", "foo", "--out", out).stderr
    assert "error: --to is 'foo'" in run("convert", plan_file, "--to", "foo", "--out", out).stderr
    result = run("export", plan_file, "--engine", "sglang", "--out", out, "--first-layer", 10**9)
    assert "error: --first-layer holds 1000000003; ids lie below" in result.stderr
    assert not out.exists()


def test_what_cannot_be_is_refused_before_anything_is_written(run, loads: Path, tmp_path: Path) -> None:
    words = ("convert", loads, "--to", "tensorrt-llm-statistics", "--out", tmp_path / "new")
    assert "--experts-per-token is 0" in run(*words, "--experts-per-token", 0).stderr
    assert "is of 16 experts, and deepseek-v3 has 256" in run(*words, "--model", "deepseek-v3").stderr
    assert not (tmp_path / "new").exists()
    result = run("slots", loads, "--ranks", 4, "--gpu", "h100", "--tokens-per-rank", 4, "--top-k", 99)
    assert result.exit_code == 2
    assert "--top-k is 99, and the load is of 16 experts" in result.stderr
    result = run("slots", loads, "--ranks", 4, "--gpu", "h100", "--tokens-per-rank", 4, "--bytes-per-expert", 0)
    assert "--bytes-per-expert is 0; it must be finite and above 0" in result.stderr
    result = run("inspect", loads, "--window", 2)
    assert (result.exit_code, "--window is 2, and" in result.stderr) == (2, True)


def test_a_file_that_is_named_twice_is_refused(run, loads: Path) -> None:
    result = run("inspect", loads, loads)
    assert (result.exit_code, "is named twice, and its steps would count twice" in result.stderr) == (2, True)


def test_a_placement_may_be_compared_with_itself(run, loads: Path, plan_file: Path) -> None:
    result = run("evaluate", loads, "--placement", plan_file, "--against", plan_file)
    assert (result.exit_code, "are the same in every slot" in result.stdout) == (0, True)


def test_evaluate_names_its_own_option_for_ranks(run, loads: Path, plan_file: Path, tmp_path: Path) -> None:
    assert "is for 4 ranks; leave out --ranks" in run("evaluate", loads, "--placement", plan_file, "--ranks", 5).stderr
    bare = tmp_path / "map.json"
    assert run("convert", plan_file, "--to", "sglang", "--out", bare).exit_code == 0
    assert "name them with --ranks." in run("evaluate", loads, "--placement", bare).stderr
    assert run("evaluate", loads, "--placement", bare, "--ranks", 4).exit_code == 0


@pytest.mark.parametrize("engine", sorted(set(PLACEMENT_FORMATS)))
def test_a_load_with_layer_ids_meets_what_any_engine_has_in_force(
    run, named: Path, tmp_path: Path, engine: str
) -> None:
    plan, exported = tmp_path / "plan.json", tmp_path / f"map.{EXTENSION.get(engine, 'json')}"
    assert run("plan", named, "--ranks", 4, "--slots", 20, "--out", plan).exit_code == 0
    assert run("export", plan, "--engine", engine, "--out", exported).exit_code == 0
    result = run("evaluate", named, "--placement", exported, "--ranks", 4, "--balancedness", 0.99)
    assert result.exit_code == 0, result.stderr


def test_a_replan_takes_the_layer_ids_of_whoever_has_them(run, named: Path, loads: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    for first, second in ((named, loads), (loads, named)):
        assert run("plan", first, "--ranks", 4, "--slots", 20, "--out", tmp_path / "p.json").exit_code == 0
        words = ("--current", tmp_path / "p.json", "--max-transfers", 4, "--out", out)
        assert run("replan", second, *words).exit_code == 0
        assert json.loads(out.read_text())["layer_ids"] == [3, 4, 5, 7]


def test_ranks_that_a_file_leaves_empty_stay_lost(run, loads: Path, plan_file: Path, tmp_path: Path) -> None:
    lost, maps, out = tmp_path / "lost.json", tmp_path / "maps.pt", tmp_path / "next.json"
    words = ("--lost-ranks", 1, "--max-transfers", 16, "--out", lost)
    assert run("replan", loads, "--current", plan_file, *words).exit_code == 0
    words = ("--engine", "deepseek", "--mtp-layers", 1, "--out", maps)
    assert run("export", lost, *words).exit_code == 0
    held = read_placement(maps)
    assert held is not None
    assert held.with_ranks(4).empty_ranks == (1,)  # in the draft layer too
    words = ("--current-ranks", 4, "--max-transfers", 16, "--out", out)
    result = run("replan", loads, "--current", maps, *words)
    assert (result.exit_code, "records rank 1 as lost" in result.stderr) == (0, True)
    assert json.loads(out.read_text())["lost_ranks"] == [1]
    words = ("export", lost, "--engine", "sglang", "--mtp-layers", 1, "--out", tmp_path / "map.json")
    assert "leaves the slots of rank 1, which is lost, empty, and sglang has no sign" in run(*words).stderr


@pytest.mark.parametrize("engine", ["vllm-ascend", "omni-infer", "deepseek"])
def test_a_map_without_dense_layers_meets_a_load_with_them(run, tmp_path: Path, engine: str) -> None:
    load = np.random.default_rng(2).integers(1, 900, (5, 16))
    load[:2] = 0
    np.save(tmp_path / "load.npy", load)
    plan, out = tmp_path / "plan.json", tmp_path / f"map.{EXTENSION.get(engine, 'json')}"
    assert run("plan", tmp_path / "load.npy", "--ranks", 4, "--slots", 20, "--out", plan).exit_code == 0
    assert run("export", plan, "--engine", engine, "--skip-empty", "--out", out).exit_code == 0
    words = ("--ranks", 4, "--balancedness", 0.99)
    assert run("evaluate", tmp_path / "load.npy", "--placement", out, *words).exit_code == 0
    words = ("--current-ranks", 4, "--max-transfers", 4, "--out", plan)
    assert run("replan", tmp_path / "load.npy", "--current", out, *words).exit_code == 0
    assert json.loads(plan.read_text())["layer_ids"] == [2, 3, 4]


@pytest.mark.parametrize("kind", ["npy", "json", "pt"])
def test_a_bare_table_of_slots_is_a_placement_where_one_is_asked(
    run, loads: Path, plan_file: Path, tmp_path: Path, kind: str
) -> None:
    table = json.loads(plan_file.read_text())["physical_to_logical"]
    bare, out = tmp_path / f"table.{kind}", tmp_path / "out.json"
    if kind == "npy":
        np.save(bare, table)
    elif kind == "json":
        bare.write_text(json.dumps(table))
    else:
        torch.save(torch.tensor(table), bare)
    assert run("evaluate", loads, "--placement", bare, "--ranks", 4, "--balancedness", 0.99).exit_code == 0
    assert run("convert", bare, "--to", "sglang", "--out", out).exit_code == 0
    assert json.loads(out.read_text())["physical_to_logical_map"] == table
    assert "is a placement, the expert in each slot" in run("plan", bare, "--ranks", 4, "--slots", 24).stderr


def test_shares_are_kept_or_refused_and_never_dropped(run, loads: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "map.json"
    words = ("--ranks", 4, "--slots", 20, "--shares", "best", "--connected", "--out", plan)
    assert run("plan", loads, *words).exit_code == 0
    for command in (("export", plan, "--engine"), ("convert", plan, "--to")):
        result = run(*command, "sglang", "--out", out)
        assert (result.exit_code, "has uneven shares, and a file of sglang cannot say so" in result.stderr) == (2, True)
    assert not out.exists()
    planned = json.loads(run("evaluate", loads, "--placement", plan, "--json").stdout)["contenders"][0]
    assert planned["mean_balancedness"] > 0.9999


def test_a_pattern_is_replayed_by_no_planner(run, plan_file: Path, tmp_path: Path) -> None:
    assert run("export", plan_file, "--engine", "omni-infer", "--out", tmp_path / "pattern.npy").exit_code == 0
    result = run("replay", tmp_path / "pattern.npy", "--ranks", 4, "--slots", 24)
    assert (result.exit_code, "looks like a placement, a pattern of 0 and 1" in result.stderr) == (2, True)
