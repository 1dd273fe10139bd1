from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import equipoise

HEAVY = ("numpy", "numba", "torch", "triton", "typer", "rich")


def modules_after(statement: str) -> list[str]:
    """Return which heavy packages ``statement`` imports in a fresh process."""
    script = f"import json, sys\n{statement}\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    loaded: list[str] = json.loads(run.stdout.splitlines()[-1])
    return loaded


def test_importing_equipoise_imports_nothing_heavy() -> None:
    assert modules_after("import equipoise") == []


NATIVE = {
    "SlotTimes",
    "slot_times",
    "Capacity",
    "Frontier",
    "LinkSpeeds",
    "MigrationSchedule",
    "Replay",
    "count_transfers",
    "frontier",
    "rebalance_experts",
    "replay",
    "refresh",
    "slots_for",
    "solve",
}
"""Names that plan, or stand in a module that does: only these may bring in the compiler."""


@pytest.mark.parametrize("name", equipoise.__all__)
def test_no_public_name_needs_torch_or_the_command_line(name: str) -> None:
    loaded = modules_after(f"from equipoise import {name}")
    assert set(loaded) <= ({"numpy", "numba"} if name in NATIVE else {"numpy"})


def test_help_needs_no_numbers() -> None:
    statement = "import equipoise.cli.app"
    assert set(modules_after(statement)) <= {"typer", "rich"}


def test_public_names_are_listed_and_others_are_refused() -> None:
    assert dir(equipoise) == sorted([*equipoise.__all__, "__version__"])
    for name in equipoise.__all__:
        assert getattr(equipoise, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'balance'"):
        equipoise.balance  # noqa: B018
