"""What each stage of joint descent is worth: one is left out at a time, and that costs so much gap, work and time.

    python benchmarks/stages.py [--repeats 2] [--only 288/32 320/64] [--effort balanced]

Whole models: 58 layers of 256 experts and, for 448 slots, 30 of 384, on recorded loads (generated ones where they are
not there) and on heavily skewed ones; and as many layers with few slots, which "exact" is for. One core, so that
processor time is comparable. Every plan is checked and recounted from its slots, and its gap taken to the same bounds,
before it is timed. A stage appears where leaving it out changes plan or work.

"swaps" is not left out: the first descent and every other stage consist of swaps, and nothing would remain. "relaxed"
and "fitted" begin anew from other counts, so without them what they lead to is not squeezed or traded either.
Appends to benchmarks/results/stages.jsonl.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import equipoise as eq
import harness
from equipoise.bounds import lower_bounds
from equipoise.bounds.table import first_floor
from equipoise.certificate import check_placement
from equipoise.descent import EFFORTS, STAGES
from equipoise.fixed_point import to_fixed_point
from equipoise.hierarchy import split_by_node
from equipoise.search import Search

Floats = NDArray[np.float64]
MAX_GAP = 0.001
LEFT_OUT = ((), *((stage,) for stage in STAGES if stage != "swaps"))
NO_STOP = np.zeros(1, np.bool_)


@dataclass(frozen=True)
class Shape:
    """Layers to plan, on a cluster."""

    slots: int
    ranks: int
    experts: int = 256
    layers: int = 58

    @property
    def name(self) -> str:
        return f"{self.slots}/{self.ranks}"

    def workloads(self) -> dict[str, Floats]:
        """Return loads [layers, experts] by name, the same in every run."""
        source, load = harness.loads(self.layers, self.experts)
        random = np.random.default_rng(0)
        size = self.layers, self.experts
        row = 1e7 / np.arange(1, self.experts + 1) ** 1.2
        zipf = random.permuted(np.tile(row, (self.layers, 1)), axis=1)
        return {
            "recorded" if source.startswith("recorded") else "sigma 0.7": load,
            "zipf 1.2": np.rint(zipf * random.uniform(0.8, 1.2, size)),
            "half at zero": np.rint(random.lognormal(10, 1, size)) * (random.random(size) < 0.5),
            "sigma 2.6": np.rint(random.lognormal(10, 2.6, size)),
        }


SHAPES = (
    Shape(288, 32),
    Shape(320, 64),
    Shape(432, 144),
    Shape(288, 144),
    Shape(448, 64, experts=384, layers=30),
    Shape(24, 6, experts=16),
    Shape(18, 6, experts=12),
)


def main() -> None:
    """Leave out every stage on every shape and load."""
    parser = argparse.ArgumentParser(description="What each stage of joint descent is worth.")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[shape.name for shape in SHAPES], help="shapes")
    parser.add_argument("--effort", default="balanced", choices=[name for name in EFFORTS if name != "fast"])
    args = parser.parse_args()
    rows = []
    for shape in SHAPES:
        if shape.name in args.only:
            for workload, load in shape.workloads().items():
                rows += leave_out(shape, workload, load, args)
    print(f"one core; effort {args.effort}; {harness.machine()['processor']}; {harness.commit()}\n")
    shown = [name for name in rows[0] if name != "changes"]
    harness.print_table([{name: row[name] for name in shown} for row in rows if row["changes"]])
    print("\nall shapes and loads, each counting the same\n")
    harness.print_table(summarise(rows))
    harness.record("stages", rows, effort=args.effort, repeats=args.repeats)
    print("\nappended to benchmarks/results/stages.jsonl")


def leave_out(shape: Shape, workload: str, load: Floats, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for the whole search and one for the search without each stage; times are taken in turn."""
    problem = eq.PlacementProblem(load, eq.Cluster.from_slots(shape.ranks, shape.slots))
    lower, _ = lower_bounds(problem)
    fixed = to_fixed_point(problem.load, shape.ranks)
    floor, split = first_floor(problem, fixed), split_by_node(problem, fixed, None)

    def search(without: tuple[str, ...]) -> Search:
        found = Search(split, floor, MAX_GAP, 1, without=without)
        found.run(args.effort, NO_STOP)
        return found

    found = {without: search(without) for without in LEFT_OUT}
    whole = found[()]
    changed = {w: bool((own.steps != whole.steps).any() or (own.held != whole.held).any()) for w, own in found.items()}
    gap = {without: check(problem, own, lower) for without, own in found.items()}
    seconds = {without: np.inf for without in LEFT_OUT if changed[without] or not without}
    for _ in range(args.repeats):
        for without in seconds:
            start = time.process_time()
            search(without)
            seconds[without] = min(seconds[without], time.process_time() - start)
    rows = []
    for without, own in found.items():
        took = seconds.get(without, seconds[()])
        rows.append(
            {
                "shape": shape.name,
                "load": workload,
                "without": without[0] if without else "nothing",
                "mean gap %": points(gap[without].mean()),
                "worst gap %": points(gap[without].max()),
                "mean gap +": points(gap[without].mean() - gap[()].mean()),
                "worst gap +": points(gap[without].max() - gap[()].max()),
                "Msteps a layer": float(own.steps.mean()) / 1e6,
                "ms a layer": 1e3 * took / shape.layers,
                "steps x": float(own.steps.sum() / whole.steps.sum()),
                "time x": took / seconds[()],
                "acted": sum(whole.stages.values()) if not without else whole.stages[without[0]],
                "changes": changed[without] or not without,
            }
        )
    return rows


def check(problem: eq.PlacementProblem, search: Search, lower: Floats) -> Floats:
    """Return the gap of each layer, recounted from the slots."""
    placement = eq.Placement(search.held, problem.cluster.num_ranks, problem.num_logical_experts)
    largest = check_placement(problem, placement, allow_duplicates=False).max(axis=1)
    gap: Floats = np.maximum(largest / lower - 1, 0.0)
    if (largest < lower * (1 - 1e-9)).any():
        sys.exit("a plan is better than its lower bound; nothing was recorded.")
    return gap


def points(share: float) -> float:
    """Return a share in percent, to the ten thousandth that can mean anything."""
    return round(100 * float(share), 4)


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each stage: the means over shapes and loads, and where leaving it out costs most gap."""
    table = []
    for (stage,) in LEFT_OUT[1:]:
        own = [row for row in rows if row["without"] == stage]
        most = max(own, key=lambda row: row["mean gap +"])
        table.append(
            {
                "without": stage,
                "changes": sum(row["changes"] for row in own),
                "mean gap +": round(float(np.mean([row["mean gap +"] for row in own])), 4),
                "most": most["mean gap +"],
                "on": f"{most['shape']}, {most['load']}" if most["mean gap +"] > 0 else "-",
                "steps x": float(np.exp(np.mean(np.log([row["steps x"] for row in own])))),
                "time x": float(np.exp(np.mean(np.log([row["time x"] for row in own])))),
            }
        )
    return table


if __name__ == "__main__":
    main()
