"""What plans in time are worth: sampled step times, gaps to the bound, and how long planning takes.

    python benchmarks/step_time.py LOADS [--first-layer 3] [--together]

LOADS is a load of 256 experts, such as a recorded one of DeepSeek-V3. Each plan is checked, and its time recounted,
before anything is measured. Planning is in processor time of the token plan for the same slots, one thread each, with
warm kernels; of one plan for all batch sizes (``--together``) it is not measured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

import equipoise as eq
from equipoise.advice import rank_times
from equipoise.checker import check_time
from equipoise.load import read_load

MODEL = eq.LatencyModel(fixed=19.6, floor=11.7, base=4.2, per_token=0.063)
SHAPES = ((32, (8, 9)), (64, (4, 5)))
TOKENS = (4, 16, 32, 64, 96, 128, 256)
TOP_K, STEPS, REPEATS = 8, 200, 60

Floats = NDArray[np.float64]


def sampled(placement: eq.Placement, shares: Floats, mean: Floats) -> Floats:
    """Return the mean over steps of the busiest rank [layers], replicas with Poisson tokens."""
    times = np.empty(len(mean))
    for layer, table in enumerate(placement.physical_to_logical):
        tokens = (mean[layer][table] * shares[layer]).reshape(placement.num_ranks, -1)
        drawn = np.random.default_rng(layer).poisson(tokens, (STEPS, *tokens.shape))
        times[layer] = MODEL.rank_time(drawn).max(axis=1).mean()
    return times


def ratio(run: Callable[[], object], than: Callable[[], object]) -> float:
    """Return the least processor time of one call in that of the other; the two take turns."""
    least = [np.inf, np.inf]
    for _ in range(REPEATS):
        for at, call in enumerate((run, than)):
            start = time.process_time()
            call()
            least[at] = min(least[at], time.process_time() - start)
    return least[0] / least[1]


def main() -> None:
    """Print one row for each cluster and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads")
    parser.add_argument("--first-layer", type=int, default=3, help="layers before this one are left out")
    parser.add_argument("--together", action="store_true", help="one plan for all batch sizes")
    given = parser.parse_args()
    load = read_load(given.loads).load[given.first_layer :]
    print("slots  tokens  token plans, sampled  best of them  planned, expected  sampled  of best  gap mean  planning")
    for ranks, sizes in SHAPES:
        clusters = [eq.Cluster(ranks, slots) for slots in sizes]
        tokens = [eq.solve(eq.PlacementProblem(load, cluster)) for cluster in clusters]
        routed = [each * ranks * TOP_K for each in TOKENS]
        balance = partial(eq.solve, eq.PlacementProblem(load, clusters[-1]), threads=1)
        asked = [eq.PlacementProblem(load, clusters[-1], latency=MODEL, routed_per_step=size) for size in routed]
        if given.together:
            shared = eq.solve(eq.PlacementProblem(load, clusters[-1], latency=MODEL, routed_per_step=routed))
        for size, problem, each in zip(routed, asked, TOKENS, strict=True):
            mean = problem.mean_tokens(size)
            old = [sampled(plan.placement, eq.Shares.even(plan.placement).values, mean) for plan in tokens]
            plan = shared if given.together else eq.solve(problem)
            shares = plan.shares_for(size)
            expected = check_time(problem, plan.placement, shares, size).max(axis=1)
            assert plan.time is not None
            at = plan.time.nearest(size)
            assert (expected == plan.time.max_rank_time[at]).all()
            alone = rank_times(tokens[-1].placement, MODEL, problem, size).max(axis=1)
            assert (expected <= alone * (1 + 1e-9)).all()
            new = sampled(plan.placement, shares.values, mean)
            best = np.minimum(*old).mean()
            took = np.nan if given.together else ratio(partial(eq.solve, problem, threads=1), balance)
            olds = " / ".join(f"{time.mean():.1f}" for time in old)
            print(
                f"{clusters[-1].num_slots:>5}  {each:>6}  {olds:>20}  {best:>12.1f}  {expected.mean():>17.1f}  "
                f"{new.mean():>7.1f}  {new.mean() / best:>7.4f}  {plan.time.mean_gap[at]:>8.2%}  {took:>6.1f} x"
            )


if __name__ == "__main__":
    main()
