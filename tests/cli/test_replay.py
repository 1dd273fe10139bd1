from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq

STEPS = np.random.default_rng(1).poisson(30 * np.random.default_rng(0).gamma(0.7, 1.0, (24, 3, 16)))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "steps.npz"
    np.savez(path, counts=STEPS.astype(np.uint16))
    return path


def test_the_table_runs_from_best_to_worst_and_says_what_to_run(run, trace: Path) -> None:
    result = run("replay", trace, "--ranks", 4, "--slots", "16,20", "--every", "1,4", "--max-transfers", "none,2")
    assert result.exit_code == 0
    rows = [
        line.split() for line in result.stdout.splitlines() if line.startswith(("none", "plain", "joint", "oracle"))
    ]
    means = [float(row[4]) for row in rows]
    assert means == sorted(means, reverse=True)
    assert rows[0][0] == "oracle"
    assert "recommended" in result.stdout
    assert "--eplb-config" in result.stdout
    assert result.stderr == ""


def test_json_has_a_row_for_each_setting_with_the_names_that_are_promised(run, trace: Path) -> None:
    options = ["--ranks", 4, "--slots", "16,20", "--every", "1,4", "--max-transfers", "none,2", "--window", 2]
    options += ["--planner", "none", "--planner", "plain-greedy"]
    report = json.loads(run("replay", trace, *options, "--json").stdout)
    assert len(report["rows"]) == 2 * 2 * 2 * 2
    names = {
        "planner", "slots", "every", "max_transfers", "balancedness_mean", "balancedness_p10", "balancedness_worst",
        "realised_mean", "transfers_per_window", "microseconds", "net_microseconds",
    }  # fmt: skip
    for row in report["rows"]:
        assert names <= set(row)
        assert row["realised_mean"] is row["microseconds"] is row["net_microseconds"] is None
    direct = eq.replay(
        STEPS, eq.Cluster(4, 4), planners=["none", "plain-greedy"], slots=[16, 20], every=[1, 4],
        max_transfers=[None, 2], window=2,
    )  # fmt: skip
    assert [row["balancedness_mean"] for row in report["rows"]] == [row.balancedness_mean for row in direct.rows]


def test_time_and_a_dispatch_rule_fill_their_columns(run, trace: Path) -> None:
    options = ["--ranks", 4, "--slots", 20, "--gpu", "h200", "--top-k", 2, "--dispatch", "vllm"]
    report = json.loads(run("replay", trace, *options, "--json").stdout)
    for row in report["rows"]:
        assert 0 < row["realised_mean"] <= 1
        assert row["net_microseconds"] >= row["microseconds"] > 3 * 20
    assert report["measure"] == "net_microseconds"
    assert report["bytes_per_expert"] == 3 * 7168 * 2048
    ranked = sorted((r["net_microseconds"], r["planner"]) for r in report["rows"] if r["planner"] != "oracle")
    assert report["recommendation"]["best"]["planner"] == ranked[0][1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--slots", "20,x"], "--slots is '20,x'"),
        (["--slots", "20", "--max-transfers", "few"], "--max-transfers is 'few'"),
        (["--slots", "21"], "21 slots do not spread evenly over 4 ranks"),
        (["--slots", "12"], "cannot hold 16 logical experts"),
        (["--slots", "20", "--planner", "best"], "planner is 'best'"),
        (["--slots", "20", "--window", "24"], "needs a window after it"),
        (["--slots", "20", "--links", "fast"], "--links is 'fast'"),
    ],
)
def test_wrong_use_ends_in_a_sentence(run, trace: Path, options: list[str], sentence: str) -> None:
    result = run("replay", trace, "--ranks", 4, *options)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stdout == ""


def test_a_report_is_written_and_json_says_where(run, trace: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib draws the pictures: pip install 'equipoise[report]'")
    path = tmp_path / "report.html"
    result = run("replay", trace, "--ranks", 4, "--slots", 20, "--report", path, "--json")
    assert json.loads(result.stdout)["written_to"] == str(path)
    assert path.read_text().startswith("<!doctype html>")


def test_a_report_that_cannot_be_drawn_or_written_is_refused_first(run, trace: Path, monkeypatch) -> None:
    result = run("replay", trace, "--ranks", 4, "--slots", 20, "--report", trace.parent / "no" / "report.html")
    assert result.exit_code == 2
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("replay", trace, "--ranks", 4, "--slots", 20, "--report", trace.parent / "report.html")
    assert result.exit_code == 2
    assert "pip install 'equipoise[report]'" in result.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or sys.platform == "win32", reason="signals to a process group")
def test_an_interrupted_replay_keeps_what_is_done_and_goes_on_from_its_json(run, tmp_path: Path) -> None:
    steps = np.tile(STEPS, (200, 1, 1))
    np.save(tmp_path / "long.npy", steps)
    options = [str(tmp_path / "long.npy"), "--ranks", "4", "--slots", "20", "--planner", "plain-greedy", "--json"]
    # A mark on stderr says when the first windows are done, so that the signal comes in between.
    script = (
        "import sys\nfrom equipoise.traces.walk import Walk\nfrom equipoise.cli import main\nimport equipoise.cli.app\n"
        "take = Walk._take\n"
        "def marked(self, block):\n"
        "    take(self, block)\n"
        "    print('done', self.done, file=sys.stderr, flush=True)\n"
        "    import time; time.sleep(0.3)\n"
        "Walk._take = marked\nsys.argv[0] = 'equipoise'\nmain()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, "replay", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline().startswith("done")
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "are kept. The output of --json can be gone on with" in err
    part = json.loads(out)
    assert part["interrupted"]
    assert 0 < part["windows_done"] < len(steps)
    (tmp_path / "part.json").write_text(out)
    rest = json.loads(run("replay", *options, "--resume", tmp_path / "part.json").stdout)
    whole = json.loads(run("replay", *options).stdout)
    assert rest == whole
