"""Joint descent against the published planner and pruned restarts: whole models, checked first, then timed in turn.

    python benchmarks/planning.py [--threads 2] [--repeats 7] [--only models skew restarts slots start growth]

models   recorded DeepSeek-V3 loads (generated ones where they are not there): every shape and gap that has a bar.
skew     heavy skew with five or more slots a rank.
restarts the same loads by pruned restarts at their defaults, ours and the plain batched tensor program, and by joint
         descent that stops at the mean gap that they reach. Takes some minutes, most of it the tensor program.
slots    balancedness against slots, found and proved: what ``equipoise slots`` answers.
start    compile time, first call with compiled kernels on disk, steady state.
growth   layers from 58 to 464; slots up to 8,192 on 1,024 ranks for 4,096 experts.

Every placement is recounted from its slots before any time is taken, and all gaps are to the same proved bounds.
Appends to benchmarks/results/planning.jsonl. Times of planners in one row group come from one run, in turn.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import equipoise as eq
import harness
from baselines import greedy_numpy, plain_torch
from equipoise.bounds import lower_bounds
from equipoise.certificate import check_placement
from equipoise.eplb import rebalance_experts

Floats = NDArray[np.float64]
NUMPY = "numpy greedy"
RESTARTS_BAR = 1 / 500
LAYERS_AT_ONCE = 8  # the tensor program is a little faster so than with all layers in one batch


@dataclass(frozen=True)
class Task:
    """A load on a cluster, the gap to stop at, and the bar that is set for it, if any."""

    workload: str
    load: Floats
    slots: int
    ranks: int
    max_gap: float = 0.001
    nodes: int = 1
    groups: int | None = None
    gap_bar: tuple[str, float] | None = None
    time_bar: float | None = None
    gain_bar: float | None = None

    @property
    def problem(self) -> eq.PlacementProblem:
        return eq.PlacementProblem(self.load, eq.Cluster.from_slots(self.ranks, self.slots, self.nodes), self.groups)

    @property
    def shape(self) -> str:
        return f"{self.slots} into {self.ranks}" + (f", {self.groups} groups" if self.groups else "")

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.load, self.slots, self.groups or 1, self.nodes, self.ranks


BARS = (
    {"slots": 288, "ranks": 32, "gap_bar": ("max", 0.001), "time_bar": 1 / 10},
    {"slots": 288, "ranks": 32, "max_gap": 0.0001, "gap_bar": ("mean", 0.0001), "time_bar": 1 / 3},
    {"slots": 320, "ranks": 64, "gap_bar": ("mean", 0.001), "time_bar": 1 / 6},
    {"slots": 432, "ranks": 144, "gap_bar": ("mean", 0.0025), "time_bar": 1.0},
    {"slots": 288, "ranks": 144, "gain_bar": 0.011, "time_bar": 1.0},
    {"slots": 288, "ranks": 32, "nodes": 4, "groups": 8, "gap_bar": ("mean", 0.001), "time_bar": 1 / 10},
)
SKEW_BARS = (
    {"slots": 288, "ranks": 32, "gap_bar": ("mean", 0.001)},
    {"slots": 320, "ranks": 64, "gap_bar": ("mean", 0.001)},
    {"slots": 448, "ranks": 64, "gap_bar": ("mean", 0.001)},
)


def main() -> None:
    """Run the parts that the command line asks for."""
    parser = argparse.ArgumentParser(description="Joint descent against the published planner and pruned restarts.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--first-call", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first_call:
        return print_first_call(args.threads)
    print(f"{args.threads} threads; {harness.machine()['processor']}; {harness.commit()}")
    for part in args.only:
        print(f"\n{part}\n")
        rows, context = PARTS[part](args)
        harness.print_table(rows)
        harness.record("planning", rows, part=part, threads=args.threads, repeats=args.repeats, **context)
    print("\nappended to benchmarks/results/planning.jsonl")
    return None


def models(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare on the loads of whole models, for every shape that has a bar."""
    tasks, sources = model_tasks()
    return [row for task in tasks for row in compare(task, args)], {"load": sources}


def skew(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare on loads with heavy skew."""
    tasks, source = skew_tasks()
    return [row for task in tasks for row in compare(task, args)], {"load": source}


def model_tasks() -> tuple[list[Task], list[str]]:
    """Return a task for every recording and bar, and where the loads come from."""
    tasks, sources = [], []
    for recording in harness.RECORDINGS:
        source, load = harness.loads(recording=recording)
        sources.append(source)
        name = recording.split("_")[2] if source.startswith("recorded") else "generated"
        tasks += [Task(name, load, **bar) for bar in BARS]  # type: ignore[arg-type]
    return tasks, sources


def skew_tasks() -> tuple[list[Task], str]:
    """Return the tasks of heavy skew, and where the load comes from that half of the experts are taken from."""
    source, load = harness.loads()
    random = np.random.default_rng(0)
    half = load.copy()
    for row in half:
        row[random.permutation(256)[:128]] = 0
    zipf = np.stack([random.permutation(np.rint(1e7 / np.arange(1, 257) ** 1.2)) for _ in range(58)])
    workloads = {"zipf 1.2": zipf, "half at zero": half, "sigma 2.6": random.lognormal(10, 2.6, (58, 256))}
    return [Task(name, own, **bar) for name, own in workloads.items() for bar in SKEW_BARS], source  # type: ignore[arg-type]


def compare(task: Task, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Check every planner on one task, then time them in turn."""
    problem, threads = task.problem, args.threads
    lower, _ = lower_bounds(problem)
    mean = task.load.sum(axis=1) / task.ranks
    calls: dict[str, Callable[[], Any]] = {
        NUMPY: lambda: greedy_numpy.rebalance_experts(*task.arguments)[0],
        "rebalance_experts": lambda: rebalance_experts(*task.arguments, max_gap=task.max_gap, threads=threads)[0],
        "solve": lambda: eq.solve(problem, max_gap=task.max_gap, threads=threads),
    }
    found = {name: call() for name, call in calls.items()}
    busiest = {name: check(name, task, plan) for name, plan in found.items()}
    seconds = {name: times["median"] for name, times in harness.time_together(calls, args.repeats).items()}

    rows = []
    for name, largest in busiest.items():
        gap = np.maximum(largest / lower - 1, 0.0)
        row = {
            "workload": task.workload,
            "shape": task.shape,
            "max gap": task.max_gap,
            "planner": name,
            "mean gap %": 100 * float(gap.mean()),
            "worst gap %": 100 * float(gap.max()),
            "mean balancedness": float((mean / largest).mean()),
            "ms": 1e3 * seconds[name],
            "of numpy": seconds[name] / seconds[NUMPY],
        }
        ours = name in ("solve", "rebalance_experts")
        rows.append(row | {"bar": judge(task, row, gap, busiest, mean) if ours else ""})
    return rows


def check(name: str, task: Task, found: Any) -> Floats:
    """Return the busiest rank of each layer, recounted, or end the run: a wrong plan is not worth timing."""
    placement = found.placement if isinstance(found, eq.Plan) else eq.Placement(found, task.ranks, task.load.shape[1])
    # The published planner may put an expert on a rank twice; nobody else may.
    rank_load = check_placement(task.problem, placement, allow_duplicates=name == NUMPY)
    return rank_load.max(axis=1)


def judge(task: Task, row: dict[str, Any], gap: Floats, busiest: dict[str, Floats], mean: Floats) -> str:
    """Say which bar is missed, if one is."""
    missed = []
    if task.gap_bar is not None:
        over, most = task.gap_bar
        reached = float(gap.max() if over == "max" else gap.mean())
        missed += [f"gap > {most:.2%}"] if reached > most * (1 + 1e-9) else []
    if task.gain_bar is not None:
        gain = row["mean balancedness"] - float((mean / busiest[NUMPY]).mean())
        missed += [f"gain {gain:.4f}"] if gain < task.gain_bar else []
    if task.time_bar is not None:
        missed += [f"time > {task.time_bar:.3g}"] if row["of numpy"] > task.time_bar else []
    return "; ".join(missed) or "met"


def restarts(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare with pruned restarts at their defaults, each timed once, by what it takes to come as close as they do."""
    torch.set_num_threads(args.threads)
    tasks, sources = model_tasks()
    tasks = [task for task in tasks + skew_tasks()[0] if task.max_gap == 0.001]
    eq.solve(tasks[0].problem.of_layers(np.arange(1)), "pruned-restarts", threads=args.threads)
    return [beside_restarts(task, args) for task in tasks], {"load": sources}


def beside_restarts(task: Task, args: argparse.Namespace) -> dict[str, Any]:
    """Let joint descent stop at the mean gap that pruned restarts reach on one task, and compare the times."""
    problem, (lower, _) = task.problem, lower_bounds(task.problem)
    once = harness.time_call(lambda: eq.solve(problem, "pruned-restarts", threads=args.threads), 0)
    restarts_gap = float((check("pruned-restarts", task, once["result"]) / lower - 1).mean())
    tensor = None
    if task.groups is None:
        weight = harness.replicas(task.load, task.slots)

        def program() -> NDArray[Any]:
            found, _ = plain_torch.pack(torch.from_numpy(weight), task.ranks, layers_at_once=LAYERS_AT_ONCE)
            return found.numpy()

        tensor = harness.time_call(program, 0)
        if any((np.bincount(row, minlength=task.ranks) != task.slots // task.ranks).any() for row in tensor["result"]):
            sys.exit("the tensor program returned a plan that does not fill every rank; nothing was recorded.")

    def plan() -> eq.Plan:
        return eq.solve(problem, max_gap=max(restarts_gap, 1e-9), threads=args.threads)

    timed = harness.time_call(plan, args.repeats)
    gap = float((check("solve", task, timed["result"]) / lower - 1).mean())
    ratio = timed["median"] / once["first"]
    missed = (["worse"] if gap > restarts_gap * (1 + 1e-9) else []) + (["time"] if ratio > RESTARTS_BAR else [])
    return {
        "workload": task.workload,
        "shape": task.shape,
        "restarts mean gap %": 100 * restarts_gap,
        "descent mean gap %": 100 * gap,
        "descent ms": 1e3 * timed["median"],
        "restarts / descent": 1 / ratio,
        "tensor program / descent": tensor["first"] / timed["median"] if tensor else None,
        "bar": "; ".join(missed) or "met",
    }


def slots(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Show how balancedness grows with slots: what placements reach, and what is proved to be out of reach."""
    source, load = harness.loads(recording=harness.RECORDINGS[1])
    rows = []
    for ranks in (32, 64, 144):
        problem = Task("", load, -(-load.shape[1] // ranks) * ranks, ranks).problem
        for point in eq.slots_for(problem, 0.99, threads=args.threads).points:
            placed = eq.solve(replace(problem, cluster=point.cluster), threads=args.threads)
            if abs(placed.metrics.mean_balancedness - point.mean_balancedness) > 1e-9:
                sys.exit(f"{point.num_slots} slots: a plan does not reach what the curve says; nothing was recorded.")
            rows.append(
                {
                    "ranks": ranks,
                    "slots": point.num_slots,
                    "redundant": point.num_redundant_experts,
                    "mean balancedness": point.mean_balancedness,
                    "at most": point.mean_limit,
                    "worst layer": point.worst_balancedness,
                    "its at most": point.worst_limit,
                }
            )
    return rows, {"load": source}


def start(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time the first calls of fresh processes: with an empty folder of compiled kernels, then with a full one."""
    source, load = harness.loads()
    problem = Task("", load, 288, 32).problem
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        command = [sys.executable, __file__, "--first-call", "--threads", str(args.threads)]
        compiled, loaded = (
            float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
            for _ in range(2)
        )
    steady = harness.time_call(lambda: eq.solve(problem, threads=args.threads), args.repeats)["median"]
    row = {"shape": "288 into 32", "compile s": compiled, "first call, on disk s": loaded, "steady s": steady}
    return [row], {"load": source}


def print_first_call(threads: int) -> None:
    """Print how long the first plan of this process takes, imports of kernels included."""
    problem = Task("", harness.loads()[1], 288, 32).problem
    begin = time.perf_counter()
    eq.solve(problem, threads=threads)
    print(time.perf_counter() - begin)


def growth(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time more layers, then more slots; the bar is half a second a layer for 8,192 slots on 1,024 ranks."""
    source, load = harness.loads()
    random = np.random.default_rng(0)
    tasks = [
        Task("layers", np.concatenate([load[:, random.permutation(256)] for _ in range(times)]), 288, 32)
        for times in (1, 2, 4, 8)
    ]
    tasks += [
        Task("slots", np.rint(random.lognormal(10, 0.7, (2, 4 * ranks))), 8 * ranks, ranks)
        for ranks in (64, 128, 256, 512, 1024)
    ]
    rows = []
    for task in tasks:
        problem = task.problem
        largest = check("solve", task, eq.solve(problem, threads=args.threads))
        gap = largest / lower_bounds(problem)[0] - 1
        calls = {
            "rebalance_experts": lambda task=task: rebalance_experts(*task.arguments, threads=args.threads),
            "solve": lambda problem=problem: eq.solve(problem, threads=args.threads),
        }
        times = harness.time_together(calls, args.repeats)
        layers, experts = task.load.shape
        rows.append(
            {
                "grows": task.workload,
                "layers": layers,
                "experts": experts,
                "slots": task.slots,
                "ranks": task.ranks,
                "mean gap %": 100 * float(gap.mean()),
                "worst gap %": 100 * float(gap.max()),
                **{f"{name} ms a layer": 1e3 * time["median"] / layers for name, time in times.items()},
            }
        )
    return rows, {"load": source}


PARTS = {"models": models, "skew": skew, "restarts": restarts, "slots": slots, "start": start, "growth": growth}

if __name__ == "__main__":
    main()
