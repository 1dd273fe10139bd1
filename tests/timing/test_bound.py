"""The lower bound on the busiest rank's expected time, held to brute force over counts, placements and active sets."""

from __future__ import annotations

import numpy as np
import pytest

from equipoise import Cluster, LatencyModel, PlacementProblem
from equipoise.testing import brute_force_time, random_load
from equipoise.timing.plan import InTime

SHAPES = (
    (1, 1, 2),
    (2, 1, 3),
    (2, 2, 2),
    (3, 2, 2),
    (3, 2, 3),
    (4, 2, 3),
    (2, 3, 1),
    (3, 3, 2),
    (4, 3, 2),
    (3, 4, 1),
    (5, 2, 3),
)
MODELS = (
    LatencyModel(19.6, 11.7, 4.2, 0.063), LatencyModel(0, 10, 0, 0.1), LatencyModel(5, 0, 3, 0.05),
    LatencyModel(0, 0, 0, 1), LatencyModel(2, 8, 8, 0), LatencyModel(0, 1, 0.5, 2.0),
)  # fmt: skip
BATCHES = (1.0, 7.0, 60.0, 400.0, 3000.0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model.constants))
def test_no_plan_takes_less_than_the_bound(shape: tuple[int, int, int], model: LatencyModel) -> None:
    experts, ranks, slots = shape
    load = random_load(16, experts, np.random.default_rng(experts + 10 * ranks + 100 * slots))
    problem = PlacementProblem(load, Cluster(ranks, slots), latency=model, routed_per_step=BATCHES)
    in_time = InTime(problem, 0.0, 1)
    for at, best in enumerate(brute_force_time(problem)):
        bound = in_time.bound(best * 1.5 + 1.0, at)
        assert (bound <= best * (1 + 1e-7)).all(), (problem.batch_sizes[at], bound - best)


def test_counting_closes_what_work_leaves_open() -> None:
    """Nine experts that cost the floor on eight ranks: some rank holds two, whatever the mean says."""
    model = LatencyModel(0, 10, 0, 0.001)
    problem = PlacementProblem(np.ones((1, 9)), Cluster(8, 2), latency=model, routed_per_step=9000)
    assert InTime(problem, 0.0, 1).bound(np.array([20.0]), 0)[0] == pytest.approx(20.0, rel=1e-2)


def test_a_layer_without_tokens_takes_what_is_fixed() -> None:
    problem = PlacementProblem(np.zeros((1, 4)), Cluster(2, 3), latency=MODELS[0], routed_per_step=100)
    assert brute_force_time(problem) == pytest.approx(19.6)
    assert InTime(problem, 0.0, 1).bound(np.array([19.6]), 0) == pytest.approx([19.6])


def test_brute_force_knows_what_a_dormant_replica_is_worth() -> None:
    """Two experts on one rank of three slots: a third replica would cost a floor more."""
    problem = PlacementProblem([[500.0, 500.0]], Cluster(1, 3), latency=MODELS[0], routed_per_step=50)
    assert brute_force_time(problem)[0, 0] == pytest.approx(19.6 + 2 * 11.7, rel=1e-6)
