from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from real_loads import real_load


def test_every_layer_is_a_row_and_empty_ones_are_reported(run, loads: Path) -> None:
    result = run("inspect", loads)
    assert result.exit_code == 0
    assert "4 layers x 16 experts" in result.stdout
    assert "layer 1: no tokens" in result.stdout
    rows = result.stdout.splitlines()[-4:]
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3"]
    assert "no tokens" in rows[1]
    assert "█" in rows[0]


def test_json_has_the_skew_of_each_layer(run, loads: Path) -> None:
    counts = np.array(json.loads(loads.read_text())["logical_count"])
    report = json.loads(run("inspect", loads, "--json").stdout)
    assert (report["num_layers"], report["num_logical_experts"], report["empty_layers"]) == (4, 16, [1])
    assert report["tokens"] == counts.sum()
    for row, layer in zip(report["layers"], counts, strict=True):
        assert row["tokens"] == layer.sum()
        assert row["unused_experts"] == (layer == 0).sum()
        if layer.any():
            assert row["hottest_expert"] == layer.argmax()
            assert row["hottest_to_mean"] == layer.max() / layer.mean()
    assert report["layers"][1]["hottest_to_mean"] is None


def test_windows_are_counted_and_summed(run, tmp_path: Path) -> None:
    path = tmp_path / "steps.npy"
    np.save(path, np.ones((5, 2, 8)))
    assert "5 steps summed" in run("inspect", path).stdout
    assert json.loads(run("inspect", path, "--json").stdout)["tokens"] == 80


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_no_line_is_wider_than_the_terminal_or_a_hundred_columns(
    run, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = run("inspect", real_load("deepseek_v3_prefill_in1024.json")).stdout.splitlines()[4:]
    assert max(map(len, table)) <= min(columns, 100)
    assert "…" not in "".join(table)


def test_a_layer_without_any_tokens_at_all_is_no_trouble(run, tmp_path: Path) -> None:
    path = tmp_path / "zeros.json"
    path.write_text("[[0, 0]]")
    assert "layer 0: no tokens" in run("inspect", path).stdout
