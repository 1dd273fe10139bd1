"""Plan many small, awkward layers: ``python fuzz_layers.py FIRST LAST EFFORT ROWS``, in a process that may crash.

Each seed is printed before it is planned, so that the last one printed is the one that crashed, hung or failed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import equipoise as eq
from equipoise.testing import assert_valid_placement

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23)
SLOTS = (1, 2, 3, 3, 3, 4, 5, 6, 7, 8)  # three a rank, where the search has most branches of its own, come more often

KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]] = {
    "level": lambda random, shape: random.normal(1000, random.choice([10, 40]), shape).round(),
    "equal": lambda random, shape: np.full(shape, 7.0),
    "two values": lambda random, shape: np.where(random.random(shape) < random.random(), 1.0, random.integers(2, 900)),
    "few tokens": lambda random, shape: random.poisson(random.choice([1, 2, 5, 20]), shape).astype(float),
    "tokens": lambda random, shape: random.poisson(random.choice([100, 1000]), shape).astype(float),
    "zeros": lambda random, shape: random.integers(0, 50, shape) * (random.random(shape) < 0.3).astype(float),
    "one giant": lambda random, shape: np.where(np.arange(shape[1]) == 1, 1e6, random.integers(0, 9, shape)),
    "distinct": lambda random, shape: random.uniform(5e8, 1e9, shape).round(),
    "skewed": lambda random, shape: random.lognormal(0, random.choice([0.5, 1.5, 3]), shape) * 1000,
}
"""Loads that made planners fail, or nearly: ties, no ties, next to nothing, next to level, one expert that is all."""


def problem_of(seed: int, rows: int) -> eq.PlacementProblem:
    """Return the problem of one seed: one shape and one kind of load, ``rows`` layers of it."""
    random = np.random.default_rng([seed, 2026])
    ranks = int(random.choice(PRIMES)) if random.random() < 0.5 else int(random.integers(1, 25))
    slots = int(random.choice(SLOTS))
    spare = 0 if random.random() < 0.5 else int(random.integers(0, ranks * slots))
    kind = KINDS[list(KINDS)[seed % len(KINDS)]]
    return eq.PlacementProblem(np.abs(kind(random, (rows, ranks * slots - spare))), eq.Cluster(ranks, slots))


def main(first: int, last: int, effort: str, rows: int) -> None:
    """Plan every seed from ``first`` to before ``last``; each plan is valid and no worse than the plain one."""
    for seed in range(first, last):
        print(f"seed {seed}, {rows} rows, effort {effort}", flush=True)
        problem = problem_of(seed, rows)
        plan = eq.solve(problem, effort=effort, threads=1)
        assert_valid_placement(problem, plan.placement)
        plain = eq.solve(problem, "plain-greedy", threads=1).metrics.max_rank_load
        within = plan.certificate.lower_bound * (1 + 0.001)
        worse = plan.metrics.max_rank_load > np.maximum(plain, within) * (1 + 1e-9)
        assert not worse.any(), f"layer {worse.argmax()} is worse than the plain plan"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
