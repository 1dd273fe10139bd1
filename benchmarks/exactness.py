"""How far plans are from the true optimum, where an exact method can tell it: no times, only gaps.

    python benchmarks/exactness.py [--seconds 20] [--medium 36]

tiny     every shape of ``equipoise.testing.TINY_SHAPES``, loads that go wrong in planners, optimum by brute force.
medium   8 to 16 experts on 4 to 6 ranks of 3 or 4 slots, optimum by OR-tools CP-SAT over replica counts and
         packing at once; instances that it does not prove optimal in time are counted and left out.

Both optima are over placements without two replicas of an expert on a rank. Layers without tokens are left out. Prints
the distribution of gaps to the optimum, and of the optimum to the proved bound, and appends them to
benchmarks/results/exactness.jsonl. ``optimum`` is what tests/descent/test_exactness.py calls too.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import equipoise as eq
import harness
from equipoise.bounds import lower_bounds
from equipoise.certificate import check_placement
from equipoise.testing import TINY_SHAPES, brute_force_optimum, random_load

Floats = NDArray[np.float64]
WAYS: dict[str, dict[str, Any]] = {
    "joint-descent": {},
    "joint-descent, fast": {"effort": "fast"},
    "joint-descent, thorough": {"effort": "thorough", "max_gap": 0.0},
    "pruned-restarts": {"strategy": "pruned-restarts"},
    "plain-greedy": {"strategy": "plain-greedy"},
}


def main() -> None:
    """Run both sizes."""
    parser = argparse.ArgumentParser(description="How far plans are from the true optimum.")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each medium instance, at most")
    parser.add_argument("--medium", type=int, default=36, help="medium instances")
    args = parser.parse_args()
    for size, instances in (("tiny", tiny()), ("medium", medium(args.medium, args.seconds))):
        gaps: dict[str, list[float]] = {name: [] for name in (*WAYS, "bound below the optimum")}
        left_out = 0
        for problem, best in instances:
            if best is None:
                left_out += 1
                continue
            for name, own in gaps_of(problem, best).items():
                gaps[name] += own.tolist()
        rows = [distribution(name, np.array(own)) for name, own in gaps.items()]
        print(
            f"{size}: {len(gaps['joint-descent'])} instances" + (f", {left_out} not proved in time" if left_out else "")
        )
        print("gap to the optimum in %\n")
        harness.print_table(rows)
        print()
        harness.record("exactness", rows, size=size, left_out=left_out)


def tiny() -> Iterator[tuple[eq.PlacementProblem, Floats]]:
    """Yield problems that brute force solves, with their optima."""
    for experts, ranks, slots in TINY_SHAPES:
        load = random_load(24, experts, np.random.default_rng([experts, ranks, slots]))
        problem = eq.PlacementProblem(load[load.sum(axis=1) > 0], eq.Cluster(ranks, slots))
        best = brute_force_optimum(problem, allow_duplicates=False)
        apart = np.isfinite(best)
        if apart.any():
            yield eq.PlacementProblem(problem.load[apart], problem.cluster), best[apart]


def medium(number: int, seconds: float) -> Iterator[tuple[eq.PlacementProblem, Floats | None]]:
    """Yield one-layer problems with their optima, None where none is proved in time."""
    random = np.random.default_rng(0)
    for index in range(number):
        ranks, slots = int(random.integers(4, 7)), int(random.integers(3, 5))
        experts = int(random.integers(8, min(16, ranks * slots) + 1))
        sigma = (0.7, 1.3, 2.6)[index % 3]
        load = np.ceil(random.lognormal(5, sigma, (1, experts)))
        problem = eq.PlacementProblem(load, eq.Cluster(ranks, slots))
        best = optimum(problem, seconds)
        yield problem, None if best is None else np.array([best])


def optimum(problem: eq.PlacementProblem, seconds: float) -> float | None:
    """Return the least busiest rank of one layer of whole numbers, without duplicates, or None if not proved in time.

    Each expert takes one of 1 to R replica counts, and as many ranks; loads are multiplied by the least common multiple
    of the counts, so that every share is a whole number and nothing is rounded.
    """
    from ortools.sat.python import cp_model

    cluster, load = problem.cluster, [int(value) for value in problem.load[0]]
    ranks, counts = range(cluster.num_ranks), range(1, cluster.num_ranks + 1)
    scale = math.lcm(*counts)
    model = cp_model.CpModel()
    takes = [{count: model.new_bool_var("") for count in counts} for _ in load]
    on = [{(rank, count): model.new_bool_var("") for rank in ranks for count in counts} for _ in load]
    for e in range(len(load)):
        model.add_exactly_one(takes[e].values())
        for count in counts:
            model.add(sum(on[e][rank, count] for rank in ranks) == count * takes[e][count])
    busiest = model.new_int_var(0, scale * sum(load), "")
    total = []
    for rank in ranks:
        model.add(sum(on[e][rank, count] for e in range(len(load)) for count in counts) == cluster.slots_per_rank)
        total.append(sum(scale * load[e] // count * on[e][rank, count] for e in range(len(load)) for count in counts))
        model.add(total[-1] <= busiest)
    for one, next_ in itertools.pairwise(total):
        model.add(one >= next_)  # ranks are interchangeable
    model.add(len(ranks) * busiest >= scale * sum(load))
    model.minimize(busiest)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 2
    if solver.solve(model) != cp_model.OPTIMAL:
        return None
    return solver.objective_value / scale


def gaps_of(problem: eq.PlacementProblem, best: Floats) -> dict[str, Floats]:
    """Return the gaps of all ways to plan, each placement recounted, and of the bound, to the optimum of each layer."""
    gaps = {}
    for name, arguments in WAYS.items():
        placement = eq.solve(problem, threads=1, **arguments).placement
        largest = check_placement(problem, placement, allow_duplicates=False).max(axis=1)
        gaps[name] = largest / best - 1
        if (gaps[name] < -1e-9).any():
            raise SystemExit(f"{name} beats the optimum, so one of the two is wrong: {problem.load.tolist()}")
    gaps["bound below the optimum"] = 1 - lower_bounds(problem)[0] / best
    return gaps


def distribution(name: str, gap: Floats) -> dict[str, Any]:
    """Return a row: in how many instances the gap is none, and its median, ninth decile and worst, in percent."""
    gap = np.maximum(gap, 0.0)
    percent = {"median": 50, "90 %": 90, "99 %": 99, "worst": 100}
    return {
        "": name,
        "optimal %": 100 * float((gap < 1e-9).mean()),
        "within 0.1 %": 100 * float((gap <= 0.001 + 1e-9).mean()),
        **{label: float(np.round(100 * np.percentile(gap, at), 6)) for label, at in percent.items()},
    }


if __name__ == "__main__":
    main()
