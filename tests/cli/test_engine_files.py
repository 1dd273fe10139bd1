from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq
from equipoise.load import read_load


@pytest.fixture
def plan(run, loads: Path, tmp_path: Path) -> Path:
    out = tmp_path / "plan.json"
    assert run("plan", loads, "--ranks", 4, "--slots", 20, "--out", out).exit_code == 0
    return out


def test_a_plan_is_exported_as_the_map_of_an_engine(run, plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.json"
    result = run("export", plan, "--engine", "sglang", "--out", out)
    assert result.exit_code == 0
    assert result.stdout == f"written to    {out}\n"
    assert json.loads(out.read_text()) == {
        "physical_to_logical_map": eq.Plan.load(plan).placement.physical_to_logical.tolist()
    }


def test_empty_layers_are_left_out_and_the_others_keep_their_ids(run, plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "balancer.yaml"
    run("export", plan, "--engine", "tensorrt-llm", "--skip-empty", "--out", out)
    assert [line.split(":")[0].strip() for line in out.read_text().splitlines()[2:-1]] == ["0", "2", "3"]
    run("export", plan, "--engine", "tensorrt-llm", "--first-layer", 3, "--out", out)
    assert [line.split(":")[0].strip() for line in out.read_text().splitlines()[2:-1]] == ["3", "4", "5", "6"]


def test_a_placement_goes_from_one_engine_to_another(run, plan: Path, tmp_path: Path) -> None:
    table = eq.Plan.load(plan).placement.physical_to_logical.tolist()
    yaml, ascend, back = tmp_path / "a.yaml", tmp_path / "b.json", tmp_path / "c.json"
    assert run("export", plan, "--engine", "tensorrt-llm", "--out", yaml).exit_code == 0
    refused = run("convert", yaml, "--to", "vllm-ascend", "--out", ascend)
    assert refused.exit_code == 2
    assert "does not say how many ranks its 20 slots are on" in refused.stderr
    assert run("convert", yaml, "--to", "vllm-ascend", "--ranks", 4, "--out", ascend).exit_code == 0
    assert run("convert", ascend, "--to", "sglang", "--out", back).exit_code == 0
    assert json.loads(back.read_text())["physical_to_logical_map"] == table


def test_a_load_goes_from_one_engine_to_another_and_is_planned_on(run, loads: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    folder, weight = tmp_path / "statistics", tmp_path / "weight.pt"
    refused = run("convert", loads, "--to", "tensorrt-llm-statistics", "--out", folder)
    assert refused.exit_code == 2
    assert "also says --experts-per-token" in refused.stderr
    words = ("--to", "tensorrt-llm-statistics", "--experts-per-token", 8, "--skip-empty", "--out", folder)
    assert run("convert", loads, *words).exit_code == 0
    assert read_load(folder).layer_ids == (0, 2, 3)
    assert run("convert", folder, "--to", "deepseek-load", "--out", weight).exit_code == 0
    assert read_load(weight).num_layers == 3
    assert run("plan", folder, "--ranks", 4, "--slots", 20).exit_code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("export", "PLAN", "--engine", "vllm", "--out", "x"), "set EQUIPOISE_VLLM_PLAN to the plan itself"),
        (("export", "PLAN", "--engine", "lmdeploy", "--out", "x"), "holds no placement"),
        (("export", "LOADS", "--engine", "sglang", "--out", "x.json"), "is not a plan"),
        (("convert", "PLAN", "--to", "sglang-stat", "--out", "x"), "holds no placement"),
        (("convert", "PLAN", "--to", "sglang", "--skip-empty", "--out", "x.json"), "says nothing of tokens"),
        (("convert", "LOADS", "--to", "sglang", "--out", "x.json"), "holds no load"),
        (("convert", "LOADS", "--to", "plan", "--out", "x.json"), "run equipoise plan on the load"),
        (("convert", "LOADS", "--to", "lmdeploy", "--ranks", "4", "--out", "x.json"), "is on no ranks"),
        (("convert", "nowhere", "--to", "sglang", "--out", "x.json"), "nowhere does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(run, plan: Path, loads: Path, words, sentence: str) -> None:
    result = run(*({"PLAN": plan, "LOADS": loads}.get(word, word) for word in words))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("x").exists()
    assert not Path("x.json").exists()


def test_warming_up_says_what_is_compiled(run) -> None:
    result = run("warmup")
    assert result.exit_code == 0
    assert "joint-descent" in result.stdout


def test_what_holds_nothing_known_is_named_and_not_the_format_that_was_asked_for(run, tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text("backend: pytorch\nnum_slots: 4\n")
    for to in ("sglang", "lmdeploy"):
        result = run("convert", tmp_path / "options.yaml", "--to", to, "--out", tmp_path / "map.json")
        assert result.exit_code == 2
        assert "options.yaml" in result.stderr
        assert "is a format" not in result.stderr


def single_token_steps(path: Path) -> Path:
    steps = np.zeros((100, 2, 8), dtype=np.int64)
    for step, row in enumerate(steps.reshape(-1, 8)):
        row[[step % 8, (step + 3) % 8]] = 1
    np.save(path, steps)
    return path


def test_what_a_file_is_that_could_be_both_is_decided_by_the_format_asked_for(run, tmp_path: Path) -> None:
    steps, out = single_token_steps(tmp_path / "steps.npy"), tmp_path / "out.json"
    assert run("convert", steps, "--to", "sglang-count", "--out", out).exit_code == 0
    assert read_load(out).num_windows == 100
    assert run("convert", steps, "--to", "sglang", "--out", out).exit_code == 0
    assert len(json.loads(out.read_text())["physical_to_logical_map"]) == 2


def test_a_load_is_named_where_a_placement_is_asked_for_and_the_reverse(run, plan: Path, loads: Path) -> None:
    given = run("replan", loads, "--current", loads, "--current-ranks", 4)
    assert given.exit_code == 2
    assert "is a load of 4 layers x 16 experts and no placement; name a plan, or a map" in given.stderr
    for command in (("plan", plan, "--ranks", 4, "--slots", 20), ("inspect", plan), ("slots", plan, "--ranks", 4)):
        refused = run(*command)
        assert refused.exit_code == 2
        assert "is a placement, a plan, or the table of one, and a load is asked for" in refused.stderr
