"""Compiled code is kept on disk, and made anew when any source that went into it has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLER = """
from equipoise.kernels.native import native
from callees.callee import one

@native
def two():
    return one() + 1
"""
CALLEE = """
from equipoise.kernels.native import native
from callees import LEAST

@native
def one():
    return LEAST + {more}
"""


def run(folder: Path) -> tuple[str, int]:
    """Return what a fresh process computes, and how many files of compiled code there are after it."""
    code = "from callers.caller import two; print(two(), two.stats.cache_hits.__len__())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    for variable in ("NUMBA_DISABLE_JIT", "NUMBA_CACHE_DIR"):
        environment.pop(variable, None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=folder
    )
    return done.stdout.strip(), len(list(folder.rglob("*.nbc")))


def write(folder: Path, least: int, more: int) -> None:
    for name, text in {
        "callers/__init__.py": "", "callers/caller.py": CALLER,
        "callees/__init__.py": f"LEAST = {least}\n", "callees/callee.py": CALLEE.format(more=more),
    }.items():  # fmt: skip
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


@pytest.mark.slow
def test_code_is_compiled_anew_when_what_it_calls_has_changed(tmp_path: Path) -> None:
    write(tmp_path, least=10, more=1)
    assert run(tmp_path) == ("12 0", 2)
    assert run(tmp_path) == ("12 1", 2)  # from the disk
    write(tmp_path, least=10, more=5)
    assert run(tmp_path)[0] == "16 0"
    write(tmp_path, least=20, more=5)  # a constant of the callee's folder
    assert run(tmp_path)[0] == "26 0"
    write(tmp_path, least=10, more=1)  # the code of the first run is still there
    assert run(tmp_path)[0] == "12 1"
