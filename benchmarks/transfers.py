"""What plug-ins move by default, against a plan made anew at every call: transfers, balance and time.

    python benchmarks/transfers.py [--threads 1] [--repeats 7]

The placement in force is planned on recorded prefill of DeepSeek-V3; then every expert's load drifts by a factor that
is log-normal, of the sigma given, or becomes that of recorded decoding. Every answer is checked before it is timed:
complete, no expert twice on a rank, what stays in its slot. Both ways are timed in turn. Prints a table and appends it
to benchmarks/results/transfers.jsonl.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

import equipoise as eq
import harness
from equipoise.certificate import check_placement
from equipoise.engines.planning import plan_next
from equipoise.engines.settings import Settings
from equipoise.metrics import balancedness

Floats = NDArray[np.float64]

SHAPES = ((288, 32, 8, 1), (288, 32, 8, 4), (320, 64, 8, 1), (288, 144, 8, 1))  # slots, ranks, groups, nodes
DRIFTS = (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.3)


def main() -> None:
    """Run the benchmark, print its table and append it to benchmarks/results/transfers.jsonl."""
    parser = argparse.ArgumentParser(description="What plug-ins move by default.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    decode, prefill = (harness.loads(recording=name) for name in harness.RECORDINGS)
    source, load = prefill
    random = np.random.default_rng(0)
    loads = {f"drift {drift:.1%}": load * random.lognormal(0, drift, load.shape) for drift in DRIFTS}
    loads["decoding"] = decode[1]
    rows = [compare(shape, load, name, now, args) for shape in SHAPES for name, now in loads.items()]
    harness.print_table(rows)
    path = harness.record("transfers", rows, threads=args.threads, load=source)
    print(f"\n{source}; appended to {path.relative_to(harness.ROOT)} at {harness.commit()}")


def compare(
    shape: tuple[int, int, int, int], load: Floats, name: str, now: Floats, args: argparse.Namespace
) -> dict[str, Any]:
    """Return a row: what ``load`` was planned for serves ``now``."""
    slots, ranks, groups, nodes = shape
    ways = {"default": Settings(threads=args.threads), "anew": Settings(threads=args.threads, min_gain=0.0)}
    in_force = plan_next(load, slots, groups, nodes, ranks, ways["anew"]).placement
    held = in_force.physical_to_logical
    calls = {
        way: lambda asked=asked: plan_next(now, slots, groups, nodes, ranks, asked, held) for way, asked in ways.items()
    }
    found = {way: call() for way, call in calls.items()}
    for plan in found.values():
        check_placement(plan.problem, plan.placement, allow_duplicates=False)
        kept = (plan.placement.physical_to_logical != held).sum()
        assert kept == eq.count_transfers(in_force, plan.placement).sum(), "an expert moved within its rank"
    level = {way: balancedness(plan.placement.rank_load(now)) for way, plan in found.items()}
    moved = {way: eq.count_transfers(in_force, plan.placement) for way, plan in found.items()}
    times = harness.time_together(calls, args.repeats)
    return {
        "shape": f"{len(load)}x{slots}x{ranks}" + (f" on {nodes} nodes" if nodes > 1 else ""),
        "load": name,
        "before": round(float(balancedness(in_force.rank_load(now)).mean()), 4),
        "default": round(float(level["default"].mean()), 4),
        "worst": round(float(level["default"].min()), 4),
        "anew": round(float(level["anew"].mean()), 4),
        "of anew": round(float(level["default"].mean() / level["anew"].mean()), 4),
        "transfers": round(float(moved["default"].mean()), 1),
        "most": int(moved["default"].max()),
        "anew's": round(float(moved["anew"].mean()), 1),
        "share": round(float(moved["default"].sum() / moved["anew"].sum()), 3),
        "ms": round(times["default"]["best"] * 1e3, 2),
        "anew ms": round(times["anew"]["best"] * 1e3, 2),
    }


if __name__ == "__main__":
    main()
