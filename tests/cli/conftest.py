from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from equipoise.cli.app import app

Run = Callable[..., Result]

LOAD = np.random.default_rng(0).integers(1, 1000, (4, 16))
LOAD[1] = 0


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make output the same on every machine: no colour, 80 columns, no terminal."""
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE", "FORCE_TERMINAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def run() -> Run:
    """Run the command in this process; ``.exit_code``, ``.stdout`` and ``.stderr`` say what came of it."""

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="equipoise")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    """Return a file of loads: four layers of sixteen experts, the second without tokens."""
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"logical_count": LOAD.tolist()}))
    return path
