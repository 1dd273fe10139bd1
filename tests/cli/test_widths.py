"""Tables are whole on narrow and wide terminals: no number is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_no_table_cuts_a_number(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    np.save(tmp_path / "steps.npy", np.random.default_rng(0).integers(10**9, 10**11, (3, 2, 16)))
    for words in (
        ("inspect", tmp_path / "steps.npy"),
        ("slots", tmp_path / "steps.npy", "--ranks", 4, "--strategy", "plain-greedy"),
        ("compare", tmp_path / "steps.npy", "--ranks", 4, "--slots", 20),
        ("compare", tmp_path / "steps.npy", "--ranks", 4, "--slots", 20, "--shares"),
        ("slots", tmp_path / "steps.npy", "--ranks", 4, "--gpu", "h200", "--top-k", 2, "--tokens-per-rank", "4,256"),
        ("latency",),
        ("models",),
        ("doctor",),
    ):
        shown = run(*words).stdout
        assert "…" not in shown, shown
        assert "..." not in shown, shown
