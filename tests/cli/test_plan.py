from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise.cli import options
from equipoise.errors import InvalidInputError
from equipoise.testing import assert_valid_placement
from load_files import BAD
from made_files import npz, pt
from made_files import saved as npy
from real_loads import real_load

SHAPE = ("--ranks", 4, "--slots", 20)
QUICK = ("--strategy", "pruned-restarts", "--set", "restarts=32", "--threads", 1)


def test_the_summary_says_what_was_planned_and_how_good_it_is(run, loads: Path) -> None:
    result = run("plan", loads, *SHAPE, *QUICK)
    assert result.exit_code == 0
    for words in ("4 layers x 16 experts -> 20 slots on 4 ranks", "balancedness", "gap to bound", "no tokens", "time"):
        assert words in result.stdout
    assert result.stderr == ""


def test_out_holds_the_plan_that_the_library_makes(run, loads: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    result = run("plan", loads, *SHAPE, *QUICK, "--seed", 3, "--out", out)
    assert f"written to    {out}" in result.stdout
    plan = eq.Plan.load(out)
    problem = eq.PlacementProblem(eq.load.read_load(loads), eq.Cluster(4, 5))
    assert_valid_placement(problem, plan.placement)
    assert plan.to_json() == eq.solve(problem, "pruned-restarts", seed=3, restarts=32).to_json()


def test_json_is_one_object_with_the_numbers_and_the_plan(run, loads: Path) -> None:
    result = run("plan", loads, *SHAPE, *QUICK, "--json")
    report = json.loads(result.stdout)
    plan = eq.Plan.from_json(json.dumps(report["plan"]))
    assert report["mean_balancedness"] == plan.metrics.mean_balancedness
    assert report["max_gap"] == plan.certificate.max_gap
    assert report["empty_layers"] == [1]
    assert (report["num_ranks"], report["num_slots"], report["seed"]) == (4, 20, 0)
    assert (report["max_gap_asked_for"], report["max_gap_met"], report["written_to"]) == (None, None, None)


def test_nodes_and_groups_plan_hierarchically(run, loads: Path) -> None:
    result = run("plan", loads, *SHAPE, *QUICK, "--nodes", 2, "--groups", 4, "--json")
    plan = eq.Plan.from_json(json.dumps(json.loads(result.stdout)["plan"]))
    problem = eq.PlacementProblem(eq.load.read_load(loads), eq.Cluster(4, 5, 2), 4)
    assert problem.is_hierarchical
    assert_valid_placement(problem, plan.placement)


def test_groups_that_make_no_difference_are_remarked_on(run, loads: Path) -> None:
    result = run("plan", loads, *SHAPE, *QUICK, "--groups", 4)
    assert result.exit_code == 0
    assert "note: planned globally; 4 groups" in result.stderr


def test_without_a_strategy_the_command_takes_the_library_s_own(run, loads: Path) -> None:
    report = json.loads(run("plan", loads, *SHAPE, "--json").stdout)
    plan = eq.solve(eq.PlacementProblem(eq.load.read_load(loads), eq.Cluster(4, 5)))
    assert report["strategy"] == plan.provenance.strategy
    assert report["plan"] == json.loads(plan.to_json())


def test_a_missed_gap_exits_with_one_and_the_plan_is_written_all_the_same(run, loads: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    result = run("plan", loads, *SHAPE, *QUICK, "--max-gap", 0, "--out", out)
    assert result.exit_code == 1
    assert "missed: layer" in result.stderr
    assert "above the --max-gap of 0 %" in result.stderr
    assert eq.Plan.load(out).certificate.max_gap > 0


def test_a_gap_that_is_met_exits_with_zero(run, loads: Path) -> None:
    result = run("plan", loads, *SHAPE, *QUICK, "--max-gap", 10, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["max_gap_met"] is True


COUNTS = np.arange(1, 33).reshape(2, 16)
STEPS = np.stack([COUNTS, COUNTS])
GOOD = {
    "npy": npy(COUNTS),
    "npy of steps": npy(STEPS),
    "npz": npz(logical_count=COUNTS),
    "nested JSON": json.dumps(COUNTS.tolist()).encode(),
    "JSON object": json.dumps({"logical_count": STEPS.tolist(), "other": 1}).encode(),
    "csv": "\n".join(",".join(map(str, row)) for row in COUNTS.tolist()).encode(),
    "tensor": pt(torch.from_numpy(COUNTS)),
    "dict of tensors": pt({"logical_count": torch.from_numpy(STEPS)}),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD.keys())
def test_loads_are_read_by_content_whatever_the_name(run, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "loads.unknown"
    path.write_bytes(content)
    plain = tmp_path / "plain.json"
    plain.write_bytes(GOOD["nested JSON"])
    found, wanted = (json.loads(run("plan", each, *SHAPE, *QUICK, "--json").stdout)["plan"] for each in (path, plain))
    assert found["physical_to_logical"] == wanted["physical_to_logical"]


def test_one_of_several_arrays_is_chosen_by_key(run, tmp_path: Path) -> None:
    path = tmp_path / "two.npz"
    path.write_bytes(npz(law=COUNTS, code=COUNTS[:, ::-1]))
    refused = run("plan", path, *SHAPE)
    assert refused.exit_code == 2
    assert "'law', 'code'" in refused.stderr
    assert run("plan", path, *SHAPE, *QUICK, "--key", "law").exit_code == 0


SOME_BAD = [
    "empty", "binary rubbish", "pickle", "npy, objects", "npy, truncated data", "npy, NaN", "npz, several",
    "another zip", "JSON, truncated", "JSON, ragged", "JSON, negative", "JSON, no known key", "CSV, a word",
    "gzip, cut off", "map of SGLang", "torch, truncated", "torch, an object",
]  # fmt: skip
"""One of each kind: all are refused by the same reader, which ``tests/load/test_readers.py`` asks for all of them."""


@pytest.mark.parametrize("name", SOME_BAD)
@pytest.mark.parametrize("command", ["plan", "inspect", "compare"])
def test_a_bad_file_gets_one_sentence_that_names_it(run, command: str, name: str, tmp_path: Path) -> None:
    (content, says), path = BAD[name], tmp_path / "loads"
    path.write_bytes(content)
    result = run(command, path, *(() if command == "inspect" else SHAPE))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert str(path) in result.stderr
    assert re.search(says, result.stderr)


def test_a_missing_file_and_a_folder_get_one_sentence(run, tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none.json", "does not exist"), (tmp_path, "is a folder")):
        result = run("plan", path, *SHAPE)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"error: {path} {says}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--ranks", 3, "--slots", 20), "20 slots do not spread evenly over 3 ranks"),
        (("--ranks", 4, "--slots", 8), "8 slots cannot hold 16 logical experts"),
        (("--ranks", 0, "--slots", 20), "--ranks is 0"),
        (("--ranks", 4, "--slots", -4), "--slots is -4"),
        ((*SHAPE, "--nodes", 3), "4 ranks do not spread evenly over 3 nodes"),
        ((*SHAPE, "--nodes", 0), "--nodes is 0"),
        ((*SHAPE, "--groups", 5), "16 logical experts do not form 5 equal groups"),
        ((*SHAPE, "--seed", -1), "seed is -1"),
        ((*SHAPE, "--threads", 0), "threads is 0"),
        ((*SHAPE, "--strategy", "magic"), "strategy is 'magic'"),
        ((*SHAPE, "--backend", "abacus"), "backend is 'abacus'"),
        ((*SHAPE, "--backend", "reference"), "joint-descent runs on numba; use backend 'numba' or 'auto'"),
        ((*SHAPE, "--max-gap", -1), "--max-gap is -1.0"),
        ((*SHAPE, "--max-gap", "nan"), "--max-gap is nan"),
        ((*SHAPE, "--key", "logical_counts"), "no key 'logical_counts'"),
        ((*SHAPE, "--set", "restarts"), "--set is 'restarts'"),
        ((*SHAPE, "--set", "colour=blue"), "has no parameter 'colour'"),
        ((*SHAPE, "--strategy", "pruned-restarts", "--set", "restarts=0"), "restarts is 0"),
        ((*SHAPE, "--strategy", "pruned-restarts", "--set", "restarts=1", "--set", "restarts=2"), "restarts twice"),
        ((*SHAPE, "--strategy", "pruned-restarts", "--set", "noise=loud"), "noise is 'loud'"),
    ],
)
def test_a_wrong_option_gets_one_sentence(run, loads: Path, arguments: tuple[object, ...], says: str) -> None:
    result = run("plan", loads, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("--ranks", 4), ("--ranks", "four", "--slots", 20), (*SHAPE, "--max-gap", "much"), (*SHAPE, "--colour")],
)
def test_missing_and_unknown_options_exit_with_two(run, loads: Path, arguments: tuple[object, ...]) -> None:
    result = run("plan", loads, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: equipoise plan" in result.stderr


@pytest.mark.parametrize("place", ["missing/plan.json", ".", "/dev/null"])
def test_an_out_that_cannot_be_written_is_refused_before_anything_is_read(run, place: str, tmp_path: Path) -> None:
    result = run("plan", tmp_path / "no such load", *SHAPE, "--out", tmp_path / place)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be written" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_refused(run, loads: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    result = run("plan", loads, *SHAPE, "--out", locked / "plan.json")
    assert result.exit_code == 2
    assert "permission denied" in result.stderr


def test_a_refused_run_leaves_the_old_plan(run, tmp_path: Path) -> None:
    out, bad = tmp_path / "plan.json", tmp_path / "bad.json"
    out.write_text("the old plan")
    bad.write_text("[[1, -2]]")
    assert run("plan", bad, *SHAPE, "--out", out).exit_code == 2
    assert out.read_text() == "the old plan"
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "bad.json"}


def test_too_little_memory_is_one_sentence(run, loads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("equipoise.problem.PlacementProblem", exhaust)
    result = run("plan", loads, *SHAPE)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: this needs more memory")


def test_a_recorded_load_is_planned_and_its_dense_layers_reported(run) -> None:
    path = real_load("deepseek_v3_prefill_in1024.json")
    result = run("plan", path, "--ranks", 32, "--slots", 288, *QUICK)
    assert result.exit_code == 0
    assert "61 layers x 256 experts -> 288 slots on 32 ranks" in result.stdout
    assert "in layers 0-2" in result.stdout


def test_parameters_are_read_as_numbers_where_they_are_numbers() -> None:
    texts = ["restarts=512", "noise=1e-3", "exact=true", "stop=never", "empty==", "big=10000000000000000000"]
    assert options.parse_parameters(texts) == {
        "restarts": 512,
        "noise": 0.001,
        "exact": True,
        "stop": "never",
        "empty": "=",
        "big": 10**19,
    }
    for wrong in ("=5", "a b=5", "name=", ""):
        with pytest.raises(InvalidInputError, match="--set is"):
            options.parse_parameters([wrong])


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "steps.npy"
    rng = np.random.default_rng(0)
    np.save(path, rng.poisson(40 * np.exp(np.cumsum(rng.normal(0, 0.2, (24, 2, 8)), axis=0))))
    return path


def test_forecast_plans_for_the_windows_to_come_as_the_library_does(run, trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    result = run("plan", trace, "--ranks", 4, "--slots", 12, "--forecast", "--window", 2, "--out", out)
    assert "expected; what is above is on the load forecast from 12 windows" in result.stdout
    assert "back-tested on 11 past errors" in result.stdout
    windows = eq.load.read_load(trace).grouped(2)
    plan = eq.solve(eq.PlacementProblem(eq.forecast(windows), eq.Cluster(4, 3)))
    assert eq.Plan.load(out).to_json() == plan.to_json()
    assert json.loads(run("plan", trace, "--ranks", 4, "--slots", 12, "--forecast", "--json").stdout)["forecast"] == {
        "num_windows": 24,
        "num_errors": 23,
        "expected_balancedness": pytest.approx(0.8, abs=0.2),
        "tested_layers": 2,
    }


def test_a_window_without_a_forecast_is_refused(run, trace: Path) -> None:
    result = run("plan", trace, "--ranks", 4, "--slots", 12, "--window", 2)
    assert result.exit_code == 2
    assert "pass --forecast with it" in result.stderr


def test_a_window_longer_than_the_trace_is_refused(run, trace: Path) -> None:
    result = run("plan", trace, "--ranks", 4, "--slots", 12, "--forecast", "--window", 25)
    assert result.exit_code == 2
    assert "24 windows do not fill one of 25" in result.stderr


def test_shares_and_connected_ranks_are_planned_where_asked_for(run, loads: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    result = run("plan", loads, "--ranks", 4, "--slots", 20, "--shares", "best", "--connected", "--out", out)
    assert result.exit_code == 0
    assert "components of ranks that share experts" in result.stdout
    plan = eq.Plan.load(out)
    assert plan.shares is not None
    assert run("plan", loads, "--ranks", 4, "--slots", 20, "--shares", "worst").exit_code == 2
