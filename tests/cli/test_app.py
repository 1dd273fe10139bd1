from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import equipoise
from equipoise.cli.app import COMMANDS

NAMES = [command.__name__ for command in COMMANDS]


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m equipoise`` as a user would, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "equipoise", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def test_the_commands_are_those_that_the_readme_of_the_package_names() -> None:
    assert {"plan", "inspect", "compare", "demo", "doctor"} <= set(NAMES)


def test_help_lists_every_command(run) -> None:
    for flag in ("--help", "-h"):
        result = run(flag)
        assert result.exit_code == 0
        assert all(name in result.stdout for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_command_has_an_example(run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"equipoise {name}" in result.stdout.replace(f"Usage: equipoise {name}", "")
    assert "--json" in result.stdout


def test_the_version_is_printed(run) -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"equipoise {equipoise.__version__}\n")


@pytest.mark.parametrize("arguments", [("fly",), ("--colour",), ("plan",), ("demo", "now")])
def test_wrong_use_exits_with_two(run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def without_notes(said: str) -> str:
    """Return what was said but for the line that kernels are being compiled, which comes where they are."""
    return "".join(line for line in said.splitlines(True) if not line.startswith("note: compiling kernels for "))


def test_a_process_ends_with_the_same_codes_and_keeps_the_streams_apart(loads: Path) -> None:
    shape = ("--ranks", 4, "--slots", 20, "--strategy", "plain-greedy")
    done = process("plan", loads, *shape)
    assert (done.returncode, without_notes(done.stderr)) == (0, "")
    missed = process("plan", loads, *shape, "--max-gap", 0)
    assert missed.returncode == 1
    assert without_notes(missed.stderr).startswith("missed: ")
    wrong = process("plan", "no-such-file", *shape)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: no-such-file does not exist. Check the spelling and the folder you are in.\n"


def test_output_that_cannot_show_bars_shows_them_in_plain_characters(loads: Path) -> None:
    done = process("inspect", loads, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "####" in done.stdout


def test_colour_is_only_for_terminals_and_never_with_no_color(loads: Path) -> None:
    for environment in ({}, {"NO_COLOR": "1"}):
        assert "\x1b" not in process("inspect", loads, **environment).stdout
