"""Plans in time: never slower than tokens, or than fewer slots; nested active sets; the same in files."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

import equipoise as eq
from equipoise.checker import check_time
from equipoise.errors import FileFormatError, InvalidInputError, InvalidPlacementError
from equipoise.load import generate_load, read_load
from equipoise.testing import brute_force_time, random_load, random_problems
from real_loads import real_load

H200 = eq.LatencyModel(fixed=19.6, floor=11.7, base=4.2, per_token=0.063)
SMALL = np.random.default_rng(5).pareto(0.8, (6, 24)) * 100


def busiest(problem: eq.PlacementProblem, plan: eq.Plan) -> np.ndarray:
    """Return the busiest rank's expected time [batch sizes, layers], counted by the checker."""
    return np.array([
        check_time(problem, plan.placement, plan.shares_for(size), size).max(axis=1) for size in problem.batch_sizes
    ])  # fmt: skip


def in_time(
    load: object, ranks: int, slots: int, routed: object, model: eq.LatencyModel = H200, **more: object
) -> eq.PlacementProblem:
    return eq.PlacementProblem(load, eq.Cluster(ranks, slots, **more), latency=model, routed_per_step=routed)


def all_active(problem: eq.PlacementProblem) -> np.ndarray:
    """Return the same of the plan that balances tokens, all of it active."""
    plan = eq.solve(problem.in_tokens)
    return np.array([
        check_time(problem, plan.placement, eq.Shares.even(plan.placement), size).max(axis=1)
        for size in problem.batch_sizes
    ])  # fmt: skip


@pytest.mark.parametrize("routed", [64, 1000, 8000, 40_000, 10**6])
@pytest.mark.parametrize(("ranks", "slots"), [(4, 6), (4, 8), (8, 5), (24, 1), (1, 26)])
def test_no_layer_is_slower_than_the_plan_that_balances_tokens(ranks: int, slots: int, routed: int) -> None:
    problem = in_time(SMALL, ranks, slots, routed)
    plan = eq.solve(problem)
    assert (busiest(problem, plan) <= all_active(problem) * (1 + 1e-9)).all()


@pytest.mark.parametrize("routed", [64, 1000, 8000, 40_000])
def test_more_slots_a_rank_are_never_slower(routed: int) -> None:
    times = []
    for slots in (3, 4, 5, 6, 8):
        problem = in_time(SMALL, 8, slots, routed)
        times.append(busiest(problem, eq.solve(problem))[0])
    for fewer, more in itertools.pairwise(times):
        assert (more <= fewer * 1.001).all()


@pytest.mark.parametrize(("ranks", "experts", "tokens_per_rank"), [(144, 160, 0.5), (96, 128, 0.5), (8, 9, 4.0)])
def test_where_few_slots_are_spare_no_plan_is_slower_than_one_replica_each(
    ranks: int, experts: int, tokens_per_rank: float
) -> None:
    problem = in_time(np.random.default_rng(3).gamma(1.0, 1.0, (4, experts)), ranks, 2, tokens_per_rank * ranks * 8)
    times, tokens = busiest(problem, eq.solve(problem))[0], problem.mean_tokens(problem.batch_sizes[0])
    for time, mean in zip(times, tokens, strict=True):
        load, room = np.zeros(ranks), np.full(ranks, 2)
        for cost in sorted(H200.expected_slot_time(mean), reverse=True):  # LPT, the longest processing time first
            g = np.argmin(np.where(room > 0, load, np.inf))
            load[g], room[g] = load[g] + cost, room[g] - 1
        assert time <= (H200.fixed + load.max()) * 1.001


def test_on_tiny_instances_plans_are_near_the_best_there_is() -> None:
    off = []
    for seed in range(6):
        load = random_load(8, 4, np.random.default_rng(seed))
        problem = in_time(load, 2, 3, (10.0, 300.0, 2000.0)[seed % 3])
        off.append(busiest(problem, eq.solve(problem)) / brute_force_time(problem) - 1)
    assert np.min(off) > -1e-7
    assert np.mean(off) < 0.01


def test_shares_sum_to_one_and_a_dormant_replica_has_none() -> None:
    plan = eq.solve(in_time(SMALL, 4, 8, 300))
    assert plan.shares is not None
    assert plan.time is not None
    table, values = plan.placement.physical_to_logical, np.asarray(plan.shares)
    for layer in range(len(table)):
        assert np.bincount(table[layer], values[layer]) == pytest.approx(1.0)
        for expert in range(24):
            active = values[layer][(table[layer] == expert) & (values[layer] > 0)]
            assert active == pytest.approx(1 / len(active))
    assert plan.shares.num_dormant.min() > 0
    assert plan.latency == H200


def test_the_active_set_of_a_smaller_batch_lies_in_that_of_a_larger() -> None:
    problem = in_time(SMALL, 4, 8, [64, 800, 5000, 40_000])
    plan = eq.solve(problem)
    active = [np.asarray(plan.shares_for(size)) > 0 for size in problem.batch_sizes]
    for smaller, larger in itertools.pairwise(active):
        assert (smaller <= larger).all()
    assert active[0].sum() < active[-1].sum()
    assert (busiest(problem, plan) <= all_active(problem) * (1 + 1e-9)).all()


def test_shares_of_a_batch_that_was_not_planned_are_those_of_the_nearest() -> None:
    plan = eq.solve(in_time(SMALL, 4, 8, [100, 10_000]))
    assert plan.time is not None
    assert plan.shares_for(1) is plan.shares_for(900) is plan.time.shares[0]
    assert plan.shares_for(1100) is plan.shares_for(10**9) is plan.time.shares[1]
    with pytest.raises(InvalidInputError, match="above 0"):
        plan.shares_for(0)


@pytest.mark.parametrize("per_token", [0.0, 0.05])
@pytest.mark.parametrize("fixed", [0.0, 10.0])
def test_where_slots_cost_nothing_but_tokens_the_plan_is_that_of_tokens(fixed: float, per_token: float) -> None:
    problem = in_time(SMALL, 4, 8, [50, 4000], eq.LatencyModel(fixed, 0, 0, per_token))
    plan, tokens = eq.solve(problem), eq.solve(problem.in_tokens)
    assert plan.placement == tokens.placement
    assert plan.shares == eq.Shares.even(tokens.placement)
    assert (plan.certificate.lower_bound == tokens.certificate.lower_bound).all()


def test_without_a_latency_model_nothing_changes() -> None:
    problem = eq.PlacementProblem(SMALL, eq.Cluster(4, 8))
    plan = eq.solve(problem)
    assert plan.time is None
    assert plan.shares is None
    assert plan.latency is None
    assert json.loads(plan.to_json())["version"] == 1
    assert problem.digest == eq.PlacementProblem(SMALL, eq.Cluster(4, 8), None, None, None).digest


def test_the_plan_depends_neither_on_threads_nor_on_the_order_of_layers() -> None:
    problem = in_time(SMALL, 4, 8, [64, 5000])
    one, two = eq.solve(problem, threads=1), eq.solve(problem, threads=2)
    assert one.to_json() == two.to_json()
    order = np.array([3, 0, 5, 1, 4, 2])
    turned = eq.solve(problem.of_layers(order))
    assert (turned.placement.physical_to_logical == one.placement.physical_to_logical[order]).all()
    assert (np.asarray(turned.shares) == np.asarray(one.shares)[order]).all()


def test_twice_the_load_is_the_same_plan() -> None:
    one, two = eq.solve(in_time(SMALL, 4, 8, 900)), eq.solve(in_time(SMALL * 4, 4, 8, 900))
    assert one.placement == two.placement
    assert one.shares == two.shares


@pytest.mark.parametrize(
    ("load", "ranks", "slots"),
    [
        (np.zeros((2, 4)), 2, 3), (np.ones((1, 1)), 1, 1), (np.ones((1, 4)), 4, 1), (np.ones((2, 4)), 1, 6),
        ([[1e6] + [1.0] * 15], 8, 4), ([[1.0, 0, 0, 0]], 2, 3), ([[5.0, 1.0]], 4, 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("routed", [1, 100, [1, 50, 10**5]])
def test_awkward_problems_are_ordinary_ones(load: object, ranks: int, slots: int, routed: object) -> None:
    problem = in_time(load, ranks, slots, routed)
    plan = eq.solve(problem)
    assert plan.time is not None
    assert (plan.time.lower_bound <= plan.time.max_rank_time * (1 + 1e-9)).all()
    assert (busiest(problem, plan) <= all_active(problem) * (1 + 1e-9)).all()


@pytest.mark.parametrize("routed", [(50.0, 3000.0), 10.0, 400.0])
def test_expert_groups_stay_whole_on_their_nodes(routed: object) -> None:
    for problem in random_problems(12, seed=3, most_ranks=6, most_slots=5):
        asked = dataclasses.replace(problem, latency=H200, routed_per_step=routed)
        plan = eq.solve(asked)  # checked before it is returned
        assert (busiest(asked, plan) <= all_active(asked) * (1 + 1e-9)).all()


def test_the_checker_finds_a_share_that_does_not_fit() -> None:
    problem = in_time(SMALL, 4, 8, 900)
    plan = eq.solve(problem)
    other = eq.Placement.in_order(6, eq.Cluster(4, 8), 24)
    with pytest.raises(InvalidPlacementError):
        check_time(problem, eq.Placement.in_order(5, eq.Cluster(4, 8), 24), eq.Shares.even(other), 900)
    assert plan.time is not None
    assert (
        check_time(problem, plan.placement, plan.time.shares[0], 900).max(axis=1).tolist()
        == plan.time.max_rank_time[0].tolist()
    )


def test_a_plan_in_time_comes_back_from_its_file() -> None:
    plan = eq.solve(in_time(SMALL, 4, 8, [64, 5000]))
    text = plan.to_json()
    again = eq.Plan.from_json(text)
    assert json.loads(text)["version"] == 2
    assert again.to_json() == text
    assert again.latency == H200
    assert again.shares_for(64) == plan.shares_for(64)


def test_a_plan_in_which_nothing_sleeps_comes_back_with_a_bound_for_even_shares() -> None:
    plan = eq.solve(in_time([[38.0, 4.0, 44.0]], 2, 2, [20, 3000]))
    assert plan.certificate.bound == ("hottest",)
    assert eq.Plan.from_json(plan.to_json()).to_json() == plan.to_json()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latency", {}), ("routed_per_step", [5000.0, 64.0]), ("routed_per_step", [64.0]), ("shares", 3),
        ("shares", []),
        ("max_rank_time", [[1.0]]), ("lower_bound", [[1e9] * 6] * 2), ("lower_bound", [[1.0] * 6] * 2),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused(key: str, value: object) -> None:
    document = json.loads(eq.solve(in_time(SMALL, 4, 8, [64, 5000])).to_json())
    document["time"][key] = value
    with pytest.raises(FileFormatError):
        eq.Plan.from_json(json.dumps(document))


def test_a_small_batch_with_a_replica_that_sleeps_in_a_larger_is_refused() -> None:
    document = json.loads(eq.solve(in_time(SMALL, 4, 8, [64, 40_000])).to_json())
    document["time"]["shares"].reverse()
    with pytest.raises(FileFormatError, match="dormant in a larger"):
        eq.Plan.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"latency": H200}, "without routed_per_step"), ({"routed_per_step": 5}, "without latency"),
        ({"latency": 3, "routed_per_step": 5}, "LatencyModel"),
        ({"latency": H200, "routed_per_step": 0.5}, "routed_per_step"),
        ({"latency": H200, "routed_per_step": []}, "batch sizes"),
        ({"latency": H200, "routed_per_step": ["x"]}, "routed_per_step"),
    ],
)  # fmt: skip
def test_half_a_question_is_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        eq.PlacementProblem(SMALL, eq.Cluster(4, 8), **more)  # type: ignore[arg-type]


def test_limits_without_a_placement_in_force_and_shares_of_ones_own_are_refused() -> None:
    problem = in_time(SMALL, 4, 8, 900)
    with pytest.raises(InvalidInputError, match="leave shares out"):
        eq.solve(problem, shares="best")
    with pytest.raises(InvalidInputError, match="pass current"):
        eq.solve(problem, max_transfers=3)


def test_of_a_forecast_the_time_is_that_of_what_is_expected() -> None:
    forecast = eq.forecast(np.random.default_rng(1).pareto(1.0, (6, 2, 12)) * 100)
    problem = in_time(forecast, 4, 4, [60, 4000])
    plan = eq.solve(problem)
    assert (busiest(problem, plan) <= all_active(problem) * (1 + 1e-9)).all()
    known = problem.without_forecast
    assert plan.time is not None
    for size, took in zip(plan.time.routed_per_step, plan.time.max_rank_time, strict=True):
        assert (check_time(known, plan.placement, plan.shares_for(size), size).max(axis=1) == took).all()


def test_the_summary_says_what_the_busiest_rank_takes_and_how_far_that_may_be_from_the_best() -> None:
    text = eq.solve(in_time(SMALL, 4, 8, [64, 5000])).summary()
    assert "us a layer at 64 routed tokens, gap to bound mean" in text
    assert "of tokens, in the largest batch: what was minimised is time" in text
    assert "bound by" not in text
    assert "replicas dormant" in text
    assert "0.063 n" in text


@pytest.mark.parametrize(("slots", "ranks", "most"), [(288, 32, 0.04), (320, 64, 0.05)])
@pytest.mark.parametrize("tokens", [4, 64, 256])
def test_on_a_recorded_load_the_gap_is_a_few_percent(slots: int, ranks: int, most: float, tokens: int) -> None:
    load = read_load(real_load("deepseek_v3_decode_in1000out1000.json")).load[3::6]
    plan = eq.solve(in_time(load, ranks, slots // ranks, tokens * ranks * 8))
    assert plan.time is not None
    assert plan.time.mean_gap[0] < most


def test_a_generated_load_of_small_batches_needs_no_redundant_expert_awake() -> None:
    load = generate_load("deepseek-v3", seed=0).load[:4]
    plan = eq.solve(in_time(load, 32, 9, 4 * 32 * 8))
    assert plan.shares is not None
    assert plan.shares.num_dormant.tolist() == [32] * 4
