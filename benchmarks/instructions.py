"""Where the instructions of a plan go, counted under valgrind: seconds differ from run to run, these counts hardly do.

    python benchmarks/instructions.py [--slots 288] [--ranks 32] [--max-gap 0.001] [--calls 60]

Each part runs in a process of its own under ``valgrind --tool=callgrind``, with one call and with ``--calls`` more; the
difference is what the calls took, and imports and compilation drop out. One thread. Kernels are compiled
for a processor that valgrind knows (haswell), so a newer one may need fewer. Parts of a whole plan:

solve       ``equipoise.solve``, from a checked problem to a certified plan
descent     its kernel: the packing of all layers
start       of that, counts, fold and the look at the plain greedy answer, without any swap
certify     the check of the placement and the lower bounds
digest      of the load, for the plan's provenance
rebalance   ``rebalance_experts``, from a plain array to the engine's three maps

Takes about ten minutes and needs valgrind. Appends to benchmarks/results/instructions.jsonl.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

import equipoise as eq
import harness
from equipoise.certificate import certify
from equipoise.eplb import rebalance_experts
from equipoise.fixed_point import to_fixed_point
from equipoise.hierarchy import split_by_node
from equipoise.search import Search

PARTS = ("solve", "descent", "start", "certify", "digest", "rebalance")
# What valgrind offers a process differs from the machine, and kernels are cached by it.
KNOWN = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "", "PYTHONHASHSEED": "0"}


def main() -> None:
    """Count every part, print the shares, and keep them."""
    parser = argparse.ArgumentParser(description="Where the instructions of a plan go.")
    parser.add_argument("--slots", type=int, default=288)
    parser.add_argument("--ranks", type=int, default=32)
    parser.add_argument("--max-gap", type=float, default=0.001)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        call = make_call(args)
        for _ in range(args.calls):
            call()
        return
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed; it counts the instructions.")
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, **KNOWN, "NUMBA_CACHE_DIR": cache}
        counted = {part: count(part, args, environment) for part in PARTS}
    layers = harness.loads()[1].shape[0]
    rows = [
        {
            "part": part,
            "instructions": number,
            "a layer": number / layers,
            "of solve": number / counted["solve"],
        }
        for part, number in counted.items()
    ]
    harness.print_table(rows)
    context = {"slots": args.slots, "ranks": args.ranks, "max_gap": args.max_gap}
    path = harness.record("instructions", rows, **context)
    print(f"\nappended to {path.relative_to(harness.ROOT)} at {harness.commit()}")


def count(part: str, args: argparse.Namespace, environment: dict[str, str]) -> float:
    """Return the instructions of one call of ``part``."""
    program = [sys.executable, __file__, "--part", part, "--slots", str(args.slots), "--ranks", str(args.ranks),
               "--max-gap", str(args.max_gap), "--calls"]  # fmt: skip
    subprocess.run([*program, "1"], check=True, env=environment)  # compiles, at full speed
    totals = []
    for calls in (1, 1 + args.calls):
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *program, str(calls)]
        done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
        found = re.search(r"Collected : (\d+)", done.stderr)
        if found is None:
            sys.exit(f"valgrind counted nothing:\n{done.stderr[-2000:]}")
        totals.append(int(found[1]))
    return (totals[1] - totals[0]) / args.calls


def make_call(args: argparse.Namespace) -> Callable[[], Any]:
    """Return the call that ``--part`` names, after a check that what it would time is right."""
    _, load = harness.loads()
    problem = eq.PlacementProblem(load, eq.Cluster.from_slots(args.ranks, args.slots))
    plan = eq.solve(problem, max_gap=args.max_gap, threads=1)
    fixed = to_fixed_point(problem.load, args.ranks)
    rows, floor, stop = split_by_node(problem, fixed, None), np.zeros(len(load), np.int64), np.zeros(1, np.bool_)

    def fresh() -> eq.Placement:
        return eq.Placement(plan.placement.physical_to_logical, args.ranks, load.shape[1])

    calls: dict[str, Callable[[], Any]] = {
        "solve": lambda: eq.solve(problem, max_gap=args.max_gap, threads=1),
        "descent": lambda: Search(rows, floor, args.max_gap, 1).run("balanced", stop),
        "start": lambda: Search(rows, floor, 1.0, 1).run("fast", stop),
        "certify": lambda: certify(problem, fresh()),
        "digest": lambda: eq.PlacementProblem.digest.func(problem),  # type: ignore[attr-defined]
        "rebalance": lambda: rebalance_experts(load, args.slots, 1, 1, args.ranks, max_gap=args.max_gap, threads=1),
    }
    return calls[args.part]


if __name__ == "__main__":
    main()
