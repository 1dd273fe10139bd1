"""What --report writes: whole pages without scripts, whose pictures have names, and whose numbers are those shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq

pytest.importorskip("matplotlib", reason="matplotlib draws the pictures: pip install 'equipoise[report]'")


def written(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "<script" not in text
    names = re.findall(r'<svg role="img" aria-label="([^"]+)"', text)
    assert len(names) == text.count("<svg ") == text.count("<figcaption>") > 0
    return text


@pytest.mark.parametrize("command", ["plan", "compare", "slots"])
def test_commands_that_plan_write_a_page(run, loads: Path, command: str, tmp_path: Path) -> None:
    size = [] if command == "slots" else ["--slots", 20]
    result = run(command, loads, "--ranks", 4, *size, "--report", tmp_path / "page.html", "--json")
    assert result.exit_code == 0
    text, found = written(tmp_path / "page.html"), json.loads(result.stdout)
    number = {
        "plan": lambda: found["mean_balancedness"],
        "compare": lambda: found["contenders"][1]["mean_balancedness"],
        "slots": lambda: found["points"][0]["mean_balancedness"],
    }[command]()
    assert f"{number:.4f}" in text


def test_replanning_writes_a_page(run, loads: Path, tmp_path: Path) -> None:
    run("plan", loads, "--ranks", 4, "--slots", 20, "--out", tmp_path / "plan.json")
    options = ["--current", tmp_path / "plan.json", "--max-transfers", 2, "--report", tmp_path / "page.html"]
    assert run("replan", loads, *options).exit_code == 0
    assert "Balancedness against transfers" in written(tmp_path / "page.html")


def test_inspecting_a_trace_writes_a_page_of_its_drift(run, tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(0, 40, (9, 2, 8))
    np.save(tmp_path / "steps.npy", steps)
    result = run("inspect", tmp_path / "steps.npy", "--window", 2, "--report", tmp_path / "page.html", "--json")
    drift = json.loads(result.stdout)["drift"]
    assert drift["num_windows"] == 4
    assert f"{drift['total_variation'][0]:.3f}" in written(tmp_path / "page.html")


def test_a_notebook_shows_a_plan() -> None:
    plan = eq.solve(eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(2, 3)))
    assert "mean 1.0000, worst layer 1.0000" in plan._repr_html_()
