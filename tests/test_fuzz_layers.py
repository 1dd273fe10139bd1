"""No load ends the process, hangs it, or gets a plan that is not one: many small layers, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import equipoise
import fuzz_layers

SOURCES = Path(equipoise.__file__).parent.parent
HANGS = 600  # seconds; nothing here takes a tenth of it, and nothing passes or fails by a smaller number


def plan_in_a_child(first: int, last: int, effort: str, rows: int, code: str | None = None) -> None:
    """Plan the seeds in a process of its own; a failure of any kind names the seed that makes it again."""
    command = [sys.executable, *(["-c", code] if code else [fuzz_layers.__file__])]
    command += [str(first), str(last), effort, str(rows)]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=HANGS, env={**os.environ, "PYTHONPATH": str(SOURCES)}
        )
    except subprocess.TimeoutExpired as expired:
        printed = (expired.stdout or b"").decode().splitlines()
        raise AssertionError(f"no end after {HANGS} s at {printed[-1] if printed else 'the start'}") from None
    last_printed = (run.stdout.splitlines() or ["the start"])[-1]
    assert run.returncode == 0, (
        f"{'signal' if run.returncode < 0 else 'exit'} {abs(run.returncode)} at {last_printed}: {run.stderr[-2000:]}"
    )
    assert last_printed.startswith(f"seed {last - 1},")


def test_small_layers_of_every_kind_get_valid_plans() -> None:
    plan_in_a_child(0, 120, "balanced", 60)


@pytest.mark.slow
def test_many_more_small_layers_of_every_kind_get_valid_plans() -> None:
    plan_in_a_child(120, 570, "balanced", 60)


@pytest.mark.slow
def test_thorough_plans_of_small_layers_are_valid_too() -> None:
    plan_in_a_child(10_000, 10_045, "thorough", 2)


def test_a_crash_in_the_child_is_reported_with_its_seed() -> None:
    crash = "import os, signal; print('seed 5, 1 rows', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    with pytest.raises(AssertionError, match="signal 11 at seed 5"):
        plan_in_a_child(5, 6, "balanced", 1, code=crash)
