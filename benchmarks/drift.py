"""What plans made from past windows are worth in the next: the published ways, plans on averages, and plans for more.

    python benchmarks/drift.py [--only 72/8] [--data FOLDER]

Recorded traces where ``EQUIPOISE_SHARED_DATA`` or ``--data`` names them, and a made-up one otherwise. At each window a
plan is made from those up to it, and judged by its balancedness with even shares on the next window, and on the mean of
the next four, averaged over layers. Gains are paired differences to ``solve on EWMA`` in points, with a standard error
that knows that windows in a row are alike (Newey and West 1987, four lags). ``transfers`` are those from the plan
before, in a layer, with the ranks named so that most stays; ``us`` is the median time of planning, a layer.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import equipoise as eq
import harness
from equipoise.forecasting.numba import look, scale
from equipoise.forecasting.smoothing import smooth
from equipoise.how import How
from equipoise.metrics import balancedness
from equipoise.replan import keep_slots, match_ranks
from equipoise.replan.budget import Budget
from equipoise.replan.replan import next_placement

LAGS = 4
TRACES = {"gpt-oss-20b": "gpt_oss_20b_steps.npz", "V2-Lite": "deepseek_v2_lite_windows.npz"}
DOMAINS = ("intent", "law", "summary", "translation")
HOW, GREEDY = How.of(), How.of("plain-greedy")
BASE = "solve on EWMA"
WAYS = (
    "none",
    "greedy, last",
    "solve, last",
    "solve, last, 8",
    BASE,
    "robust",
    *(f"robust, {k}" for k in (4, 8, 16, "any")),
)


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description="What plans are worth in the next windows.")
    parser.add_argument("--only", help="part of the name of the cells to run")
    parser.add_argument("--data", type=Path, default=None, help="folder of the recorded traces")
    args = parser.parse_args()
    rows = []
    for name, windows, cluster in cells(args.data):
        if args.only is None or args.only in name:
            rows += measure(name, windows, cluster)
            harness.print_table(rows[-len(WAYS) :])
    harness.record("drift", rows, machine=harness.machine())


def cells(data: Path | None) -> Iterator[tuple[str, Any, eq.Cluster]]:
    """Yield traces and clusters by name."""
    folder = data or Path(os.environ.get(harness.SHARED_DATA, harness._checkout() / ".." / "shared" / "data"))
    gpt, lite = (folder / file for file in TRACES.values())
    if gpt.exists():
        counts = np.load(gpt)["counts"][100:]
        for steps in (25, 100):
            for slots, ranks in ((40, 8), (48, 16)):
                windows = eq.LoadStatistics(counts).grouped(steps).tokens_per_expert
                yield f"gpt-oss-20b, {steps} steps, {slots}/{ranks}", windows, eq.Cluster.from_slots(ranks, slots)
    if lite.exists():
        parts = np.load(lite)
        counts = np.concatenate([parts[domain] for domain in DOMAINS])
        for tokens in (512, 1024):
            for slots, ranks in ((72, 8), (80, 16)):
                windows = eq.LoadStatistics(counts).grouped(tokens // 256).tokens_per_expert
                yield f"V2-Lite, {tokens} tokens, {slots}/{ranks}", windows, eq.Cluster.from_slots(ranks, slots)
    if not (gpt.exists() or lite.exists()):
        rng = np.random.default_rng(0)
        level = np.cumsum(rng.normal(0, 0.1, (60, 8, 64)), axis=0) + rng.normal(0, 0.8, (8, 64))
        yield "made up, 72/8", rng.poisson(50 * np.exp(level)), eq.Cluster.from_slots(8, 72)


def measure(name: str, windows: Any, cluster: eq.Cluster) -> list[dict[str, Any]]:
    """Return a row for each way to plan."""
    layers, experts = windows.shape[1:]
    first = 16 if len(windows) >= 60 else 5
    held = dict.fromkeys(WAYS, eq.Placement.in_order(layers, cluster, experts))
    seen: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}
    forecast = eq.forecast(windows[:first])
    for now in range(first, len(windows) - 1):
        forecast = forecast.update(windows[now])
        average = ewma(forecast, windows[: now + 1])
        for way in WAYS:
            before, start = held[way], time.perf_counter()
            held[way] = plan(way, windows[now], average, forecast, cluster, before)
            seconds = time.perf_counter() - start
            ahead = [balance(held[way], window) for window in windows[now + 1 : now + 5]]
            moved = eq.count_transfers(before, held[way]).mean()
            seen[way].append((ahead[0], float(np.mean(ahead)), float(moved), seconds / layers * 1e6))
    base = np.array(seen[BASE])
    return [row(name, way, np.array(seen[way])[1:], base[1:]) for way in WAYS]  # the first move is from nowhere


def plan(way: str, last: Any, average: Any, forecast: eq.Forecast, cluster: eq.Cluster, before: eq.Placement) -> Any:
    """Return the next placement by one way to plan."""
    kind, _, limit = way.partition(", ")
    if way == "none":
        return before
    load = {"robust": forecast, BASE: average}.get(kind, last)
    problem, how = eq.PlacementProblem(load, cluster), GREEDY if kind == "greedy" else HOW
    if way == "robust":
        return fresh(problem, before)
    most = limit.rpartition(", ")[2]
    return next_placement(problem, before, Budget(int(most) if most.isdigit() else None), how).placement


def fresh(problem: eq.PlacementProblem, before: eq.Placement) -> eq.Placement:
    """Return a robust plan made anew, whatever it moves, with its ranks named so that most stays."""
    ranks, table = before.num_ranks, HOW.place(problem)[1].physical_to_logical
    matched = match_ranks(table, before.physical_to_logical, ranks)
    kept = keep_slots(matched, before.physical_to_logical, ranks)
    return eq.Placement(kept, ranks, before.num_logical_experts)


def ewma(forecast: eq.Forecast, windows: Any) -> Any:
    """Return the exponentially weighted average of the windows' shares, with the weight that the forecast uses."""
    share, tokens = scale(forecast.windows)
    sums, number = look(share, tokens, np.array([len(share) - 1]))
    alpha, _ = smooth(sums[0], number[0], share.shape[2])
    weight = (1 - alpha) ** np.arange(len(share) - 1, -1, -1)
    return np.tensordot(weight / weight.sum(), share, axes=1)


def balance(placement: eq.Placement, window: Any) -> float:
    """Return the balancedness of a window, averaged over layers."""
    return float(balancedness(placement.rank_load(window)).mean())


def row(name: str, way: str, seen: Any, base: Any) -> dict[str, Any]:
    """Return what is printed of one way to plan."""
    gain = 100 * (seen[:, 0] - base[:, 0])
    return {
        "trace": name,
        "plan": way,
        "next": round(float(seen[:, 0].mean()), 4),
        "next 4": round(float(seen[:, 1].mean()), 4),
        "gain": round(float(gain.mean()), 2),
        "+-": round(standard_error(gain), 2),
        "transfers": round(float(seen[:, 2].mean()), 1),
        "us": round(float(np.median(seen[:, 3]))),
    }


def standard_error(gain: Any) -> float:
    """Return the standard error of a mean of numbers of which neighbours are alike."""
    away = gain - gain.mean()
    variance = away @ away
    for lag in range(1, min(LAGS, len(away) - 1) + 1):
        variance += 2 * (1 - lag / (LAGS + 1)) * (away[lag:] @ away[:-lag])
    return float(np.sqrt(max(variance, 0.0)) / len(away))


if __name__ == "__main__":
    main()
