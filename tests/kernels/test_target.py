"""Kernels for a baseline: found by processes for this processor, with the same bits; one line while they compile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from equipoise.kernels.target import baseline, name_of, targets

if numba.config.DISABLE_JIT:
    pytest.skip("nothing is compiled", allow_module_level=True)

needs_baseline = pytest.mark.skipif(baseline() is None, reason="this processor has no baseline")

KERNEL = """
import logging, sys
import numpy as np
logging.basicConfig(level=logging.INFO, format="%(message)s")
use = sys.argv[1] == "baseline"
if use:
    from equipoise.kernels.target import use_baseline
    assert use_baseline() == "x86-64-v3"
from equipoise.kernels.maps.numba import invert
invert(np.array([[0, 1, 0, 1]], dtype=np.int32), 2)
"""

PLAN = """
import numpy as np, equipoise as eq
load = np.random.default_rng(0).gamma(0.5, size=(3, 24))
problem = eq.PlacementProblem(load, eq.Cluster(4, 8, 2), 4)
print(eq.solve(problem, threads=1).to_json())
print(eq.solve(eq.PlacementProblem(load, eq.Cluster(12, 2)), threads=1).to_json())
"""


def process(program: str, kept: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NUMBA_CACHE_DIR": str(kept), **variables}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


@needs_baseline
@pytest.mark.slow
def test_what_is_compiled_for_the_baseline_is_found_by_a_process_for_this_processor(tmp_path: Path) -> None:
    first = process(KERNEL, tmp_path, "baseline").stderr
    assert first.count("compiling kernels for x86-64-v3, once; they are kept in") == 1
    assert str(tmp_path) in first
    kept = sorted(file.name for file in tmp_path.rglob("*.nbc"))
    assert kept
    assert all(name.endswith("-x86-64-v3.nbc") for name in kept)
    assert process(KERNEL, tmp_path, "own").stderr == ""
    assert process(KERNEL, tmp_path, "baseline").stderr == ""
    assert sorted(file.name for file in tmp_path.rglob("*.nbc")) == kept


@needs_baseline
@pytest.mark.slow
def test_a_processor_that_is_named_is_compiled_for_and_nothing_else_is_found(tmp_path: Path) -> None:
    process(KERNEL, tmp_path, "baseline")
    named = process(KERNEL, tmp_path, "own", NUMBA_CPU_NAME="x86-64-v2", NUMBA_CPU_FEATURES="").stderr
    assert "compiling kernels for x86-64-v2" in named


def test_targets_begin_with_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    own = ("x86_64-unknown-linux-gnu", "somecpu", "+avx2")
    assert targets(own)[0] == own
    assert len(targets(own)) == (1 if baseline() is None else 2)
    monkeypatch.setenv("NUMBA_CPU_NAME", "somecpu")
    assert targets(own) == [own]
    assert name_of(("", "a b/c", "")) == "a_b_c"


@pytest.mark.slow
@needs_baseline
def test_kernels_for_two_processors_make_the_same_bits(tmp_path: Path) -> None:
    """Two names of processors, one without AVX, compile everything twice: this takes minutes."""
    plans = {
        name: process(PLAN, tmp_path / name, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES="").stdout
        for name in ("x86-64-v2", "x86-64-v3")
    }
    assert plans["x86-64-v2"] == plans["x86-64-v3"]
