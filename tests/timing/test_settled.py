"""A placement that stays: as few replicas awake as pays, found by what tries every active set."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import equipoise as eq
from equipoise.checker import recount_time
from equipoise.timed import even_among
from equipoise.timing.plan import InTime
from equipoise.timing.settled import levels_of

H200 = eq.LatencyModel(fixed=0.0, floor=11.7, base=4.2, per_token=0.063)


def times_of(problem: eq.PlacementProblem, placement: eq.Placement, level: np.ndarray) -> np.ndarray:
    """Return the busiest rank's time of each batch size and layer with levels [layers, slots]."""
    each = [
        recount_time(problem, placement, even_among(placement, level <= at), size).max(axis=1)
        for at, size in enumerate(problem.batch_sizes)
    ]
    return np.array(each)


def random_in_force(rng: np.random.Generator, routed: object) -> tuple[eq.PlacementProblem, eq.Placement]:
    """Return a layer of five experts on three ranks of three slots."""
    spare = rng.integers(0, 5, 4)
    table = rng.permutation(np.concatenate([np.arange(5), spare]))[None]
    problem = eq.PlacementProblem(rng.pareto(0.8, (1, 5)) * 100 + 1, eq.Cluster(3, 3), None, H200, routed)
    return problem, eq.Placement(table, 3, 5)


def fastest(problem: eq.PlacementProblem, placement: eq.Placement) -> float:
    """Return the least time of one batch size over all active sets."""
    table, best = placement.physical_to_logical[0], np.inf
    for active in itertools.product((True, False), repeat=len(table)):
        awake = np.array(active)
        if len(set(table[awake].tolist())) == problem.num_logical_experts:
            best = min(best, float(times_of(problem, placement, np.where(awake, 0, 1)[None])[0, 0]))
    return best


@pytest.mark.parametrize("routed", [10.0, 400.0, 3000.0])
def test_on_tiny_layers_what_sleeps_leaves_nearly_the_least_time_there_is(routed: float) -> None:
    rng, off = np.random.default_rng(int(routed)), []
    for _ in range(25):
        problem, placement = random_in_force(rng, routed)
        level = levels_of(InTime(problem, 0.0, 1), np.array(placement.physical_to_logical.reshape(1, 3, 3)))
        off.append(times_of(problem, placement, level.reshape(1, -1))[0, 0] / fastest(problem, placement) - 1)
    assert min(off) > -1e-9
    assert np.mean(off) < 0.03
    assert np.mean(np.array(off) < 1e-6) > 0.6


@pytest.mark.parametrize("routed", [10.0, 400.0, (10.0, 400.0, 3000.0)])
def test_no_batch_is_slower_than_with_all_replicas_active_whatever_is_known(routed: object) -> None:
    rng = np.random.default_rng(7)
    for _ in range(25):
        problem, placement = random_in_force(rng, routed)
        held = np.array(placement.physical_to_logical.reshape(1, 3, 3))
        number, sizes = placement.replica_count[0], len(problem.batch_sizes)
        known = np.where(number[held] > 1, rng.integers(0, sizes + 1, held.shape), 0)
        first = np.array([np.flatnonzero(held[0].ravel() == e)[0] for e in range(5)])
        known.reshape(-1)[first] = 0  # one replica of each is awake
        level = levels_of(InTime(problem, 0.0, 1), held, [known]).reshape(1, -1)
        found = times_of(problem, placement, level)
        most = times_of(problem, placement, np.zeros_like(level))
        assert (found <= most * (1 + 1e-9)).all()
        given = times_of(problem, placement, known.reshape(1, -1))
        if (given <= most).all():
            assert (found / most).sum() <= (given / most).sum() * (1 + 1e-9)


def test_where_each_rank_can_have_as_few_awake_as_others_it_has() -> None:
    rng, met = np.random.default_rng(2), 0
    for _ in range(60):
        _, placement = random_in_force(rng, 60.0)
        problem = eq.PlacementProblem(np.ones((1, 5)), eq.Cluster(3, 3), None, H200, 60.0)  # a floor for each slot
        held = placement.physical_to_logical.reshape(3, 3)
        level = levels_of(InTime(problem, 0.0, 1), np.array(held[None]))[0]
        ways = itertools.product(*(np.flatnonzero((held == e).any(axis=1)) for e in range(5)))
        fewest = min(max(np.bincount(ranks, minlength=3)) for ranks in ways)
        took = times_of(problem, placement, level.reshape(1, -1))[0, 0]
        assert took == pytest.approx(fewest * H200.floor, rel=1e-3)
        met += fewest < 3
    assert met > 20
