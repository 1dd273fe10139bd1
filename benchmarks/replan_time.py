"""What re-planning in time moves, takes and buys: transfers a layer from one recorded load to another.

    python benchmarks/replan_time.py BEFORE AFTER

BEFORE and AFTER are loads of the same model of 256 experts, such as recorded prefill and decode of DeepSeek-V3; layers
without tokens in one of them are left out. Each re-plan is held to the times and bounds of the plan without a
placement in force before anything is counted. A second table has microseconds a layer, of the busiest rank, at each
batch size: in force with all replicas active; where all layers stay, with as few replicas active as pays; where those
change that gain 3 %; and where all do. Milliseconds are processor time of one thread with warm kernels, least of
several.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import equipoise as eq
import harness
from equipoise.checker import check_time
from equipoise.load import read_load
from equipoise.replan import match_ranks

MODEL = eq.LatencyModel(fixed=19.6, floor=11.7, base=4.2, per_token=0.063)
SHAPES = (eq.Cluster(32, 9), eq.Cluster(64, 5))
TOKENS = ((4,), (64,), (4, 64, 256))
TOP_K, REPEATS = 8, 5
LIMITS: dict[str, dict[str, Any]] = {"all stay": {"max_layers": 0}, "3 %": {"min_gain": 0.03}, "all change": {}}


def main() -> None:
    """Print a row for each cluster and set of batch sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    given = parser.parse_args()
    before, after = read_load(given.before).load, read_load(given.after).load
    busy = (before.sum(axis=1) > 0) & (after.sum(axis=1) > 0)
    rows = [measured(before[busy], after[busy], cluster, tokens) for cluster in SHAPES for tokens in TOKENS]
    harness.print_table([moved for moved, _ in rows])
    print()
    harness.print_table([bought for _, bought in rows])


def measured(before: Any, after: Any, cluster: eq.Cluster, tokens: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return what re-planning takes from a plan for ``before`` to one for ``after``."""
    routed = [size * cluster.num_ranks * TOP_K for size in tokens]
    old, new = (eq.PlacementProblem(load, cluster, latency=MODEL, routed_per_step=routed) for load in (before, after))
    current, in_tokens = eq.solve(old), eq.solve(old.in_tokens)
    plain_ms, plain = least_ms(lambda: eq.solve(new, threads=1))
    replan_ms, plan = least_ms(lambda: eq.solve(new, current=current, threads=1))
    if not all(np.allclose(getattr(plan.time, name), getattr(plain.time, name), rtol=1e-12, atol=0)
               for name in ("max_rank_time", "lower_bound")):  # fmt: skip
        sys.exit("a re-plan is not as good as a plan")
    matched = match_ranks(plain.placement.physical_to_logical, current.placement.physical_to_logical, cluster.num_ranks)
    placements = {
        "without current": plain.placement,
        "ranks matched": eq.Placement(matched, cluster.num_ranks, new.num_logical_experts),
        "re-plan": plan.placement,
    }
    moved = {name: eq.count_transfers(current, each) for name, each in placements.items()}
    moved["in tokens"] = eq.count_transfers(in_tokens, eq.solve(new.in_tokens, current=in_tokens))
    of: dict[str, Any] = {"slots": cluster.num_slots, "tokens a rank": ", ".join(map(str, tokens))}
    took = {"plan ms": plain_ms, "re-plan ms": replan_ms}
    return [
        {**of, **{name: float(each.mean()) for name, each in moved.items()}, **took},
        {**of, "in force": _shown(in_force(new, current)), **bought(new, current)},
    ]


def in_force(new: eq.PlacementProblem, current: eq.Plan) -> Any:
    """Return what the busiest rank takes with all replicas active, mean of layers, for each batch size."""
    even = eq.Shares.even(current.placement)
    return [check_time(new, current.placement, even, size).max(axis=1).mean() for size in new.batch_sizes]


def bought(new: eq.PlacementProblem, current: eq.Plan) -> dict[str, str]:
    """Return the same, and transfers a layer, for limits on the layers that change."""
    found = {}
    for name, limit in LIMITS.items():
        plan = eq.solve(new, current=current, **limit)
        assert plan.time is not None
        transfers = eq.count_transfers(current, plan).mean()
        found[name] = f"{_shown(plan.time.max_rank_time.mean(axis=1))} for {transfers:.1f}"
    return found


def _shown(microseconds: Any) -> str:
    return ", ".join(f"{each:.1f}" for each in microseconds)


def least_ms(run: Callable[[], eq.Plan]) -> tuple[float, eq.Plan]:
    """Return the least processor time of a few calls after the first, and what it returns."""
    plan, least = run(), float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        least = min(least, time.process_time() - start)
    return least * 1e3, plan


if __name__ == "__main__":
    main()
