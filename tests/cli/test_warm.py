from __future__ import annotations

import os
import subprocess
import sys

PROCESS = """
import sys
import numpy as np
import equipoise as eq
from equipoise.cli.warm import warm_up
from equipoise.load import generate_load
from equipoise.strategies import STRATEGIES
from equipoise.testing import random_problems

def compiled():
    found = {}
    for module in [module for name, module in sys.modules.items() if name.startswith("equipoise.")]:
        for name, value in vars(module).items():
            if hasattr(value, "signatures"):
                found[f"{value.py_func.__module__}.{name}"] = len(value.signatures)
    return found

warm_up(STRATEGIES)
before = compiled()
load = generate_load("deepseek-v3").load
shapes = [(32, 9), (16, 16), (64, 5), (144, 2)]
problems = [eq.PlacementProblem(load[:7], eq.Cluster(ranks, slots)) for ranks, slots in shapes]
problems += [eq.PlacementProblem(load[:5], eq.Cluster(32, 9, 4), 8), eq.PlacementProblem(load[:1], eq.Cluster(256, 1))]
problems += random_problems(20)
for problem in problems:
    for strategy in STRATEGIES:
        for threads in (1, 2, 3):
            eq.solve(problem, strategy, threads=threads, **({"restarts": 8} if strategy == "pruned-restarts" else {}))
after = compiled()
print({name: (before.get(name, 0), number) for name, number in after.items() if number != before.get(name, 0)})
"""


def test_after_warming_up_nothing_is_compiled_for_any_problem() -> None:
    # Compiling takes many seconds, which would be reported as planning time, or stall an engine's first rebalance.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert all(line.startswith("compiling kernels for ") for line in run.stderr.splitlines()), run.stderr
    assert run.stdout == "{}\n"
