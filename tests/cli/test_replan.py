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
        (("--max-transfers", "-1"), "--max-transfers is -1"),
    ],
)
def test_wrong_use_ends_with_a_sentence(run, loads: Path, in_force: Path, words, sentence: str) -> None:
    result = run("replan", loads, "--current", in_force, *words)
    assert result.exit_code == 2
    assert sentence in result.stderr


MAPS = {
    "sglang": "m.json",
    "sglang-pt": "m.pt",
    "vllm-ascend": "m.json",
    "tensorrt-llm": "m.yaml",
    "omni-infer": "m.npy",
}


@pytest.mark.parametrize("engine", MAPS)
@pytest.mark.parametrize(("ranks", "slots"), [(4, 20), (3, 18), (5, 25)])
def test_every_engines_map_can_be_in_force_and_go_to_another_number_of_ranks(
    run, loads: Path, in_force: Path, tmp_path: Path, engine: str, ranks: int, slots: int
) -> None:
    pytest.importorskip("torch" if engine == "sglang-pt" else "yaml" if engine == "tensorrt-llm" else "numpy")
    held, out = tmp_path / MAPS[engine], tmp_path / "next.json"
    assert run("export", in_force, "--engine", engine, "--out", held).exit_code == 0
    words = ("--ranks", ranks, "--slots", slots, "--max-transfers", 9, "--out", out)
    result = run("replan", loads, "--current", held, "--current-ranks", 4, *words)
    assert result.exit_code == 0, result.stderr
    found = eq.Plan.load(out)
    assert (found.cluster.num_ranks, found.cluster.num_slots) == (ranks, slots)
    assert found.placement.replica_count.all()
    before = eq.Plan.load(in_force).placement
    assert eq.count_transfers(before, found.placement).max() <= 9


def test_a_map_that_says_nothing_of_ranks_needs_their_number(run, loads: Path, in_force: Path, tmp_path: Path) -> None:
    held = tmp_path / "map.json"
    run("export", in_force, "--engine", "sglang", "--out", held)
    refused = run("replan", loads, "--current", held)
    assert refused.exit_code == 2
    assert "name them with --current-ranks" in refused.stderr
    assert run("replan", loads, "--current", held, "--ranks", 4).exit_code == 0


def test_layers_meet_by_their_ids_and_keep_them(run, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    numpy_files = pytest.importorskip("safetensors.numpy")
    random = np.random.default_rng(0)
    for name, ids in (("old", (1, 3, 5)), ("new", (3, 5)), ("other", (1, 4))):
        (tmp_path / name).mkdir()
        meta = {"num_experts": 8, "num_experts_per_token": 2}
        (tmp_path / name / "meta_info.json").write_text(json.dumps(meta))
        counts = {f"10_{layer}": random.integers(1, 99, 8) for layer in ids}
        numpy_files.save_file(counts, tmp_path / name / "rank0.safetensors")
    plan, held, out = tmp_path / "plan.json", tmp_path / "balancer.yaml", tmp_path / "next.json"
    run("plan", tmp_path / "old", "--ranks", 2, "--slots", 10, "--out", plan)
    assert eq.Plan.load(plan).layer_ids == (1, 3, 5)
    run("export", plan, "--engine", "tensorrt-llm", "--mtp-layers", 1, "--out", held)
    assert [line.split(":")[0].strip() for line in held.read_text().splitlines()[2:-1]] == ["1", "3", "5", "6"]
    words = ("--ranks", 2, "--max-transfers", 2, "--out", out)
    result = run("replan", tmp_path / "new", "--current", held, *words)
    assert "says nothing of layers 1, 6; they stay" in result.stderr
    found, before = eq.Plan.load(out), eq.Plan.load(plan).placement.physical_to_logical
    assert found.layer_ids == (1, 3, 5, 6)
    assert found.placement.physical_to_logical[0].tolist() == before[0].tolist()
    refused = run("replan", tmp_path / "other", "--current", held, *words)
    assert refused.exit_code == 2
    assert "has tokens for layer 4, which" in refused.stderr
