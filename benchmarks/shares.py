"""What shares and connected placements are worth: drift without transfers, refreshes on traces, and the time they take.

    python benchmarks/shares.py [--layers N]

Checked first: that shares are within 1e-5 of their proof, that connecting costs no more than max_gap, and that nothing
is above even shares.
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
from equipoise.dispatch import certify_shares, count_components, foresee
from equipoise.metrics import balancedness
from harness import RECORDINGS, SHARED_DATA, _checkout, loads, machine, print_table, record

DRIFT, SEEDS = 0.2, 6
SHAPES = ((288, 32), (320, 64), (288, 144))
TRACES = (
    ("gpt-oss-20b, 25 steps", "gpt_oss_20b_steps.npz", 25, 100, ((40, 8), (48, 16))),
    ("gpt-oss-20b, 100 steps", "gpt_oss_20b_steps.npz", 100, 100, ((40, 8), (48, 16))),
    ("V2-Lite, 512 tokens", "deepseek_v2_lite_windows.npz", 2, 0, ((72, 8), (80, 16))),
    ("V2-Lite, 1024 tokens", "deepseek_v2_lite_windows.npz", 4, 0, ((72, 8), (80, 16))),
)


def _folder() -> Path:
    return Path(os.environ.get(SHARED_DATA, _checkout() / ".." / "shared" / "data"))


def drifted(load: Any) -> Iterator[Any]:
    """Yield loads that have drifted in log space."""
    for seed in range(SEEDS):
        yield load * np.exp(np.random.default_rng(seed).normal(0, DRIFT, load.shape))


def after_drift(placement: eq.Placement, load: Any) -> tuple[float, float]:
    """Return the mean balancedness after the drift, with even shares and with the best ones."""
    even, best = [], []
    for moved in drifted(load):
        shares = eq.share(placement, moved)
        proof = certify_shares(shares, moved)
        assert proof.gap.max() < 1e-5
        even.append(balancedness(placement.rank_load(moved)).mean())
        best.append(balancedness(shares.rank_load(moved)).mean())
        assert best[-1] >= even[-1]
    return float(np.mean(even)), float(np.mean(best))


def drift_rows(name: str, load: Any, slots: int, ranks: int) -> dict[str, Any]:
    """Measure one load on one shape."""
    problem = eq.PlacementProblem(load, eq.Cluster.from_slots(ranks, slots))
    plain = eq.solve(problem)
    eq.solve(eq.PlacementProblem(load[:1], problem.cluster), connected=True)
    start = time.perf_counter()
    connected = eq.solve(problem, connected=True)
    planning = (time.perf_counter() - start) / len(load)
    assert (connected.metrics.max_rank_load <= plain.metrics.max_rank_load * 1.001 * (1 + 1e-9)).all()
    even, best = after_drift(plain.placement, load)
    _, joined = after_drift(connected.placement, load)
    moved = next(drifted(load))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        eq.share(plain.placement, moved)
        times.append((time.perf_counter() - start) / len(load))
    return {
        "load": name,
        "shape": f"{slots}/{ranks}",
        "planned": plain.metrics.mean_balancedness,
        "connected": connected.metrics.mean_balancedness,
        "components": float(count_components(plain.placement).mean()),
        "when connected": float(count_components(connected.placement).mean()),
        "drifted, even": even,
        "best": best,
        "best, connected": joined,
        "share, us a layer": 1e6 * min(times),
        "connect, ms a layer": 1e3 * planning,
    }


def trace_rows(name: str, file: str, steps: int, skip: int, shape: tuple[int, int]) -> dict[str, Any]:
    """Re-plan every 16 windows and refresh every window, from what came before; score the next window."""
    data = np.load(_folder() / file)
    counts = np.concatenate([data[key] for key in data.files]).astype(float)[skip:]
    whole = len(counts) // steps
    windows = counts[: whole * steps].reshape(whole, steps, *counts.shape[1:]).sum(axis=1)
    slots, ranks = shape
    first, found = 5 if whole < 60 else 16, []
    for now in range(first, whole):
        seen, tokens = windows[max(now - 32, 0) : now], windows[now]
        if (now - first) % 16 == 0:
            problem = eq.PlacementProblem(foresee(seen).expected, eq.Cluster.from_slots(ranks, slots))
            plans = [eq.solve(problem), eq.solve(problem, connected=True)]
        row = [balancedness(plans[0].placement.rank_load(tokens)).mean()]
        for plan in plans:
            shares = eq.refresh(plan, seen).shares
            assert shares is not None
            row.append(balancedness(shares.rank_load(tokens)).mean())
        row.append(balancedness(eq.share(plans[1].placement, tokens).rank_load(tokens)).mean())
        found.append(row)
    even, fresh, connected, exact = np.mean(found, axis=0)
    return {
        "trace": name,
        "shape": f"{slots}/{ranks}",
        "even": even,
        "refreshed": 100 * (fresh - even),
        "refreshed, connected": 100 * (connected - even),
        "each window's own": 100 * (exact - even),
    }


def main() -> None:
    """Check, measure, print, keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=58)
    layers = parser.parse_args().layers
    print(machine())
    rows = []
    for recording in RECORDINGS:
        source, load = loads(recording=recording)
        rows += [drift_rows(source, load[:layers], slots, ranks) for slots, ranks in SHAPES]
    lite = _folder() / "deepseek_v2_lite_windows.npz"
    if lite.exists():
        data = np.load(lite)
        rows.append(
            drift_rows("recorded (V2-Lite)", sum(data[key].astype(float).sum(axis=0) for key in data.files), 72, 8)
        )
    print_table(rows)
    traces = [
        trace_rows(*trace[:4], shape) for trace in TRACES if (_folder() / trace[1]).exists() for shape in trace[4]
    ]
    if traces:
        print("\nnext window; points over even shares, re-planned every 16 windows")
        print_table(traces)
    record("shares", rows, traces=traces)


if __name__ == "__main__":
    main()
