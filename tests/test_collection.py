"""No test is lost: a file that cannot be imported fails the run, and every file of tests is collected."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run_pytest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run pytest as the project sets it up, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_a_test_file_that_cannot_be_imported_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "test_whole.py").write_text("def test_nothing():\n    pass\n")
    assert run_pytest(tmp_path).returncode == 0
    (tmp_path / "test_broken.py").write_text("from test_elsewhere import helper\n\ndef test_it():\n    helper()\n")
    run = run_pytest(tmp_path)
    assert run.returncode not in (0, 5)
    assert "No module named 'test_elsewhere'" in run.stdout


@pytest.mark.slow
def test_every_file_of_tests_is_collected() -> None:
    run = run_pytest("--collect-only", "-rs", "tests")
    assert run.returncode == 0, run.stdout
    collected = set(re.findall(r"^(tests/\S+?\.py)::", run.stdout, re.MULTILINE))
    skipped = set(re.findall(r"^SKIPPED \[\d+\] (tests/\S+\.py):\d+: ", run.stdout, re.MULTILINE))
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert files - collected == skipped & files, "a file without tests that does not say why"
