"""Compiled code plans what the same lines do as plain Python, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import equipoise as eq

PROGRAM = """
import sys
import numpy as np
import equipoise as eq

load = np.random.default_rng(5).pareto(0.8, (2, 10)) * 100
model = eq.LatencyModel(19.6, 11.7, 4.2, 0.063)
routed = eval(sys.argv[1])
print(eq.solve(eq.PlacementProblem(load, eq.Cluster(4, 4), latency=model, routed_per_step=routed), threads=1).to_json())
"""


@pytest.mark.slow
@pytest.mark.parametrize("routed", ["60", "[40, 900, 9000]"])
def test_compiled_and_plain_python_plan_the_same(routed: str) -> None:
    run = [sys.executable, "-c", PROGRAM, routed]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    compiled, plain = (
        subprocess.run(run, env={**where, **more}, capture_output=True, text=True, check=True).stdout
        for more in ({}, {"NUMBA_DISABLE_JIT": "1"})
    )
    assert compiled == plain
    plan = eq.Plan.from_json(plain)
    assert plan.time is not None
    assert np.isfinite(plan.time.max_rank_time).all()
