"""Warm kernels: what a command warms up before it plans, and what ``equipoise warmup`` compiles for all commands.

The first is asked of every strategy and many shapes, with whatever kernels are kept, and takes seconds. The second
starts from an empty cache, walks through the commands, and is slow: nothing is compiled after it, and what it compiles,
it compiles for one set of types.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

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


def test_after_a_command_has_warmed_up_no_problem_compiles_anything() -> None:
    # Compiling takes many seconds, which would be reported as planning time, or stall an engine's first rebalance.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert all(line.startswith("compiling kernels for ") for line in run.stderr.splitlines()), run.stderr
    assert run.stdout == "{}\n"


SMALL = "--ranks 4 --slots 24"
TIME = "--gpu h200 --tokens-per-rank"
COMMANDS = (
    f"plan loads.npy {SMALL} --out plan.json",
    "plan loads.npy --ranks 4 --slots 16",  # no spare slots
    "plan loads.npy --ranks 16 --slots 32",
    "plan loads.npy --ranks 6 --slots 18",
    "plan loads.npy --ranks 2 --slots 20",
    f"plan loads.npy {SMALL} --nodes 2 --groups 4",
    f"plan loads.npy {SMALL} --strategy pruned-restarts --set restarts=64 --backend numba",
    f"plan loads.npy {SMALL} --set effort=thorough",
    f"plan steps.npy {SMALL} --forecast",
    f"plan loads.npy {SMALL} {TIME} 64",
    f"plan loads.npy {SMALL} {TIME} 4,64,256",
    f"plan loads.npy {SMALL} {TIME} 4 --nodes 2 --groups 4",
    f"plan loads.npy {SMALL} --shares best --connected",
    f"replan later.npy {SMALL} --current plan.json",
    f"replan later.npy {SMALL} --current plan.json --max-transfers 3 --bytes-per-expert 44000000",
    f"replan later.npy {SMALL} --current plan.json --lost-ranks 1 --max-transfers 9",
    "slots loads.npy --ranks 4",
    f"slots loads.npy --ranks 4 {TIME} 4,64",
    f"compare loads.npy {SMALL}",
    f"compare loads.npy {SMALL} {TIME} 64",
    "evaluate later.npy --placement plan.json",
    f"replay steps.npy {SMALL}",
)
TYPES = """
from collections import Counter
from numba.core import event

class Compiled(event.Listener):
    def on_start(self, e):
        function = e.data["dispatcher"].py_func
        if function.__module__.startswith(("equipoise.", "numba.")):
            print(f"{function.__module__}.{function.__name__}", e.data["args"], sep="\\t")

    def on_end(self, e):
        pass

with event.install_listener("numba:compile", Compiled()):
    from equipoise.cli import main
    main()
"""
CHEAP = {"goes_on", "skips", "replica_cost", "holds", "may_take", "_between"}  # a line or two, and told a constant


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "kernels"), "NO_COLOR": "1", "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder with compiled kernels, loads and steps, and what was compiled with which types."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "kernels").mkdir(mode=0o700)
    rng = np.random.default_rng(0)
    steps = rng.poisson(rng.gamma(0.5, 400, (1, 3, 16)), (24, 3, 16))
    np.save(folder / "steps.npy", steps)
    np.save(folder / "loads.npy", steps.sum(axis=0))
    np.save(folder / "later.npy", steps.sum(axis=0) * rng.uniform(0.5, 2, (3, 16)))
    done = run(folder, "-c", TYPES, "warmup")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_nothing_is_compiled_after_it_whatever_is_asked_for(warm: tuple[Path, str]) -> None:
    folder, _ = warm
    compiled = []
    for command in COMMANDS:
        done = run(folder, "-m", "equipoise", *command.split())
        assert done.returncode == 0, f"{command}: {done.stderr}"
        if "compiling kernels" in done.stderr:
            compiled.append(command)
    assert compiled == []


@pytest.mark.slow
def test_no_kernel_is_compiled_twice_for_what_is_the_same_to_its_author(warm: tuple[Path, str]) -> None:
    """A literal, or a number of another width, is one more type to numba, and all that it is passed to is compiled."""
    kinds = defaultdict(set)
    for line in warm[1].splitlines():
        name, _, types = line.partition("\t")
        if types and name.startswith("equipoise.") and name.rsplit(".", 1)[1] not in CHEAP:
            alike = re.sub(r"Literal\[int\]\([-\d]+\)|\bu?int\d+\b(?=[,)])", "int64", types)
            alike = re.sub(r"Literal\[bool\]\(\w+\)", "bool", alike)
            kinds[name, alike].add(types)
    assert kinds
    assert [name for (name, _), types in kinds.items() if len(types) > 1] == []


@pytest.mark.slow
def test_no_kernel_makes_text(warm: tuple[Path, str]) -> None:
    """Assigning one array to another has numba compile the text of an error, forty functions that nothing calls."""
    assert "numba.np.arrayobj." in warm[1]
    assert [line for line in warm[1].splitlines() if line.startswith("numba.cpython.unicode.")] == []
