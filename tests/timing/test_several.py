"""One placement for several batch sizes: slower than neither tokens nor fewer slots, and held to brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import equipoise as eq
from equipoise.checker import check_time
from equipoise.load import generate_load, read_load
from equipoise.testing import brute_force_time, random_load
from real_loads import real_load

H200 = eq.LatencyModel(fixed=19.6, floor=11.7, base=4.2, per_token=0.063)


def asked(load: object, ranks: int, slots: int, routed: list[float]) -> eq.PlacementProblem:
    return eq.PlacementProblem(load, eq.Cluster(ranks, slots), latency=H200, routed_per_step=routed)


def times_of(problem: eq.PlacementProblem, plan: eq.Plan) -> np.ndarray:
    """Return the busiest rank's expected time [batch sizes, layers], counted by the checker."""
    return np.array([
        check_time(problem, plan.placement, plan.shares_for(size), size).max(axis=1) for size in problem.batch_sizes
    ])  # fmt: skip


def balanced(problem: eq.PlacementProblem) -> np.ndarray:
    """Return the same of the plan that balances tokens, all of it active."""
    plan = eq.solve(problem.in_tokens)
    even = eq.Shares.even(plan.placement)
    return np.array([check_time(problem, plan.placement, even, size).max(axis=1) for size in problem.batch_sizes])


@pytest.mark.parametrize(
    ("experts", "ranks", "slots"), [(3, 2, 2), (4, 2, 3), (3, 3, 2), (5, 2, 3), (4, 3, 2), (2, 2, 1), (3, 1, 4)]
)
def test_on_tiny_instances_no_batch_is_faster_than_the_best_there_is(experts: int, ranks: int, slots: int) -> None:
    load = random_load(12, experts, np.random.default_rng(experts + 10 * ranks))
    problem = asked(load, ranks, slots, [2.0, 60.0, 900.0, 20_000.0])
    plan = eq.solve(problem)
    times, best = times_of(problem, plan), brute_force_time(problem)
    assert plan.time is not None
    assert (times >= best * (1 - 1e-7)).all()
    assert (plan.time.lower_bound <= best * (1 + 1e-7)).all()
    assert (times <= balanced(problem) * (1 + 1e-9)).all()
    assert np.mean(times / best) < 1.06


def test_a_plan_for_two_sizes_that_agree_is_as_fast_as_a_plan_for_one() -> None:
    load = generate_load("deepseek-v3", seed=0).load[:4]
    both = asked(load, 32, 9, [64 * 256.0, 66 * 256.0])
    one = eq.solve(asked(load, 32, 9, [64 * 256.0]))
    assert one.time is not None
    assert times_of(both, eq.solve(both))[0].mean() < one.time.max_rank_time.mean() * 1.01


@pytest.mark.parametrize("expert", [0, 7])
def test_one_expert_with_most_tokens_is_planned_for_all_sizes(expert: int) -> None:
    load = np.ones((2, 16))
    load[:, expert] = 100.0
    problem = asked(load, 4, 5, [16.0, 500.0, 16_000.0])
    plan = eq.solve(problem)
    times = times_of(problem, plan)
    assert (times <= balanced(problem) * (1 + 1e-9)).all()
    active = [np.asarray(plan.shares_for(size)) > 0 for size in problem.batch_sizes]
    for smaller, larger in itertools.pairwise(active):
        assert (smaller <= larger).all()
    assert times[0].mean() < balanced(problem)[0].mean()


def test_a_layer_of_zeros_beside_others_takes_what_is_fixed() -> None:
    load = np.vstack([np.zeros(8), np.arange(8.0)])
    problem = asked(load, 4, 3, [10.0, 2000.0])
    assert times_of(problem, eq.solve(problem))[:, 0] == pytest.approx(19.6)


@pytest.mark.parametrize(("ranks", "slots"), [(32, 9), (64, 5)])
@pytest.mark.parametrize("tokens", [(4, 64, 256), (16, 128)])
def test_on_a_recorded_load_no_size_is_slower_than_tokens(ranks: int, slots: int, tokens: tuple[int, ...]) -> None:
    load = read_load(real_load("deepseek_v3_decode_in1000out1000.json")).load[3::8]
    problem = asked(load, ranks, slots, [each * ranks * 8.0 for each in tokens])
    assert (times_of(problem, eq.solve(problem)) <= balanced(problem) * (1 + 1e-9)).all()


@pytest.mark.parametrize("tokens", [(4, 64, 256), (16, 128), (4, 16, 32, 64)])
@pytest.mark.parametrize(("ranks", "slots"), [(32, 9), (64, 5)])
def test_on_a_recorded_load_no_size_is_slower_than_with_fewer_slots_by_a_tenth_of_a_percent(
    ranks: int, slots: int, tokens: tuple[int, ...]
) -> None:
    load = read_load(real_load("deepseek_v3_decode_in1000out1000.json")).load[3::8]
    routed = [each * ranks * 8.0 for each in tokens]
    more, fewer = asked(load, ranks, slots, routed), asked(load, ranks, slots - 1, routed)
    assert (times_of(more, eq.solve(more)) <= times_of(fewer, eq.solve(fewer)) * 1.001).all()
