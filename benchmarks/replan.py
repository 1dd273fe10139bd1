"""Re-planning after a drift: what transfers buy, how long planning takes, and how little it disturbs a torch loop.

    python benchmarks/replan.py [--threads 2] [--repeats 7] [--seconds 30]

Drifts are of sigma 0.3 in log space and, so that balancedness starts at the .71 that the bars suppose, of 0.43. Every
plan is checked before it is timed: its limit, its slots, its balancedness against the bar. The ratio is the time of
re-planning the whole model with 16 transfers a layer over that of the published greedy plan in numpy. The loop's
slowdown is that of a single-threaded torch loop while another thread plans one time after the other, as the balancer
does, over the same loop while another thread keeps a core busy in native code, the median over pairs of short turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import equipoise as eq
import harness
from baselines import greedy_numpy
from equipoise.certificate import check_placement
from equipoise.load import drift_load, generate_load
from equipoise.online.planning import plan_and_schedule

Floats = NDArray[np.float64]

CLUSTER = eq.Cluster(num_ranks=32, slots_per_rank=9)
BARS = {8: 0.89, 16: 0.94, 32: 0.97, 64: 0.995}
PAIRS = 150  # short turns, each beside one of the other kind, so that a busy spell of the machine falls on both
MOST_RATIO, MOST_SLOWDOWN, MOST_OTHERS = 0.5, 0.05, 0.10


def main() -> None:
    """Run the benchmark, print its tables and append them to benchmarks/results/replan.jsonl."""
    parser = argparse.ArgumentParser(description="Re-planning after a drift.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the torch loop runs in each setting")
    args = parser.parse_args()
    source, recorded = harness.loads()
    generated = generate_load("deepseek-v3", seed=0).load
    rows = []
    for name, load, sigma in (("generated", generated, 0.3), (source, recorded, 0.3), ("generated", generated, 0.43)):
        rows += compare(f"{name}, sigma {sigma:g}", load, drift_load(load, sigma, seed=1).load, args)
    harness.print_table(rows)
    slowdown, others = disturbance(args.seconds)
    busy = (
        "" if others is None or others <= MOST_OTHERS else f" (others used {others:.0%} of the processors: run again)"
    )
    print(f"\ntorch loop beside planning: {slowdown:+.1%} (bar: {MOST_SLOWDOWN:.0%}){busy}")
    context = {"threads": args.threads, "slowdown": slowdown, "others": others}
    path = harness.record("replan", rows, **context)
    print(f"appended to {path.relative_to(harness.ROOT)} at {harness.commit()}")


def compare(name: str, load: Floats, moved: Floats, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each budget after ``load`` has become ``moved``."""
    current = eq.solve(eq.PlacementProblem(load, CLUSTER)).placement
    before = balancedness(current, moved)
    greedy = harness.time_call(lambda: greedy_numpy.rebalance_experts(moved, CLUSTER.num_slots, 1, 1, 32), args.repeats)
    rows = []
    for budget, bar in BARS.items():

        def plan(budget: int = budget) -> eq.Plan:
            problem = eq.PlacementProblem(moved, CLUSTER)
            return eq.solve(problem, current=current, max_transfers=budget, threads=args.threads)

        timed = harness.time_call(plan, args.repeats)
        found = timed["result"]
        check_placement(eq.PlacementProblem(moved, CLUSTER), found.placement, allow_duplicates=False)
        if eq.count_transfers(current, found.placement).max() > budget:
            sys.exit(f"{name}: more than {budget} transfers")
        reached = balancedness(found.placement, moved)
        schedule = harness.time_call(
            lambda plan=found: eq.MigrationSchedule(current, plan.placement, threads=args.threads), args.repeats
        )
        quiet = max(timed["others"] or 0.0, greedy["others"] or 0.0) <= MOST_OTHERS
        rows.append(
            {
                "load": name,
                "transfers": budget,
                "before": before,
                "reached": reached,
                "bar": bar,
                "met": reached >= bar,
                "plan ms": timed["best"] * 1e3,
                "greedy ms": greedy["best"] * 1e3,
                "ratio": timed["best"] / greedy["best"] if quiet else None,
                "schedule ms": schedule["best"] * 1e3,
            }
        )
    return rows


def balancedness(placement: eq.Placement, load: Floats) -> float:
    """Return mean balancedness, recounted here from the slots."""
    rank_load = placement.rank_load(load)
    return float((rank_load.mean(axis=1) / rank_load.max(axis=1)).mean())


def disturbance(seconds: float) -> tuple[float, float | None]:
    """Return how much longer a torch loop takes beside planning than beside native work, and the share of others."""
    torch.set_num_threads(1)
    load = generate_load("deepseek-v3", seed=0).load
    current = eq.solve(eq.PlacementProblem(load, CLUSTER)).placement
    problem = eq.PlacementProblem(drift_load(load, 0.3, seed=1), CLUSTER)

    def plan() -> None:
        plan_and_schedule(problem, current, 16)

    big = np.random.default_rng(0).random(1 << 20)
    plan()
    slowdowns = []
    before = harness._busy()
    start = time.perf_counter()
    for _ in range(PAIRS):
        beside_sort = loop(lambda: np.sort(big), seconds / PAIRS)
        slowdowns.append(loop(plan, seconds / PAIRS) / beside_sort - 1)
    others = harness._share_of_others(before, harness._busy(), time.perf_counter() - start)
    return statistics.median(slowdowns), others


def loop(other: Callable[[], Any], seconds: float) -> float:
    """Return the mean time of one turn of a torch loop while another thread calls ``other`` without pause."""
    a, b = torch.randn(256, 256), torch.randn(256, 256)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            other()

    thread = threading.Thread(target=work)
    thread.start()
    turns, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        torch.relu(a @ b).sum()
        turns += 1
    took = (time.perf_counter() - start) / turns
    done.set()
    thread.join()
    return took


if __name__ == "__main__":
    main()
