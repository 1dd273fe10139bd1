"""Without redundant experts: the bound by counting, held to all ways to pack the experts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

import equipoise as eq
from equipoise.bounds import BOUNDS

SHAPES = [(2, 2), (2, 3), (3, 2), (2, 4), (3, 3), (4, 2), (1, 5), (5, 1)]  # ranks, slots


def optimum(load: NDArray[np.float64], slots: int) -> float:
    """Return the least busiest rank of all ways to put ``slots`` experts on each rank."""

    def rest(left: tuple[int, ...], busiest: float, best: float) -> float:
        if not left:
            return min(best, busiest)
        for others in itertools.combinations(left[1:], slots - 1):
            carried = max(busiest, float(load[[left[0], *others]].sum()))
            if carried < best:
                best = rest(tuple(e for e in left[1:] if e not in others), carried, best)
        return best

    return rest(tuple(range(len(load))), 0.0, np.inf)


def loads(kind: str, experts: int, random: np.random.Generator) -> NDArray[np.float64]:
    rows = {
        "few tokens": lambda: random.poisson(2, (12, experts)),
        "multiples of seven": lambda: random.integers(1, 60, (12, experts)) * 7,
        "skewed": lambda: np.rint(random.lognormal(2, 1.5, (12, experts))),
        "not whole": lambda: random.random((12, experts)),
        "scaled tokens": lambda: random.poisson(3, (12, experts)) * 0.37,
    }
    return rows[kind]().astype(np.float64)


@pytest.mark.parametrize("kind", ["few tokens", "multiples of seven", "skewed", "not whole", "scaled tokens"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_packing_has_a_less_busy_rank(shape: tuple[int, int], kind: str) -> None:
    ranks, slots = shape
    load = loads(kind, ranks * slots, np.random.default_rng([*shape, len(kind)]))
    problem = eq.PlacementProblem(load, eq.Cluster(ranks, slots))
    bound = BOUNDS["pigeonhole"].prove(problem, np.zeros(len(load)), np.full(len(load), np.inf))
    best = np.array([optimum(row, slots) for row in load])
    assert (bound <= best * (1 + 1e-12)).all()
    assert kind == "not whole" or (bound >= best * (1 - 1e-6)).mean() > 0.2, "it proves something"


def test_whole_tokens_are_proved_optimal_where_they_cannot_be_shared_out_evenly() -> None:
    load = np.random.default_rng(0).poisson(1, (20, 256))
    certificate = eq.solve(eq.PlacementProblem(load, eq.Cluster(32, 8)), threads=1).certificate
    assert certificate.max_gap == 0
    assert "pigeonhole" in certificate.bound
