"""The next placement from the one in force, within limits on transfers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import equipoise as eq
from equipoise.errors import InfeasibleError, InvalidInputError, InvalidPlacementError
from equipoise.load import drift_load, generate_load, read_load
from real_loads import real_load
from replans import check_replan, drifted, situations, two_ranks, without_descent_to_level


@settings(max_examples=150)
@given(situations(), st.integers(0, 12))
def test_a_limit_is_kept_and_every_expert_is_placed(situation, k):
    problem, current, lost = situation
    try:
        plan = eq.solve(problem, current=current, lost_ranks=lost, max_transfers=k)
    except InfeasibleError:
        return
    except InvalidInputError:
        assume(len(lost) < problem.cluster.num_ranks)
        raise
    assert eq.count_transfers(current, plan.placement, lost).max() <= k
    check_replan(problem, current, lost, plan)


@settings(max_examples=100)
@given(situations(), st.integers(0, 30))
def test_a_limit_on_all_layers_together_is_kept(situation, k):
    problem, current, lost = situation
    assume(len(lost) < problem.cluster.num_ranks)
    try:
        plan = eq.solve(problem, current=current, lost_ranks=lost, max_transfers_total=k)
    except InfeasibleError:
        return
    assert eq.count_transfers(current, plan.placement, lost).sum() <= k
    check_replan(problem, current, lost, plan)


@settings(max_examples=100)
@given(situations())
def test_without_a_limit_every_slot_that_is_left_is_filled_and_what_stays_keeps_its_slot(situation):
    problem, current, lost = situation
    alive = problem.cluster.num_ranks - len(lost)
    assume(alive * problem.cluster.slots_per_rank >= problem.num_logical_experts and alive)
    plan = eq.solve(problem, "plain-greedy", current=current, lost_ranks=lost)
    assert (
        plan.placement.physical_to_logical >= 0
    ).sum() == problem.num_layers * alive * problem.cluster.slots_per_rank
    check_replan(problem, current, lost, plan)


def test_zero_transfers_change_nothing():
    current, problem = drifted(2)
    assert eq.solve(problem, current=current, max_transfers=0).placement == current
    assert eq.solve(problem, current=current, max_transfers_total=0).placement == current


BARS = {8: 0.89, 16: 0.94, 32: 0.97, 64: 0.995}


def check_bars(current, problem):
    for budget, bar in BARS.items():
        assert eq.solve(problem, current=current, max_transfers=budget).metrics.mean_balancedness >= bar


def balancedness_of(placement, load):
    rank_load = placement.rank_load(load)
    return (rank_load.mean(axis=1) / rank_load.max(axis=1)).mean()


def test_few_transfers_reach_the_bars():
    check_bars(*drifted())


def test_few_transfers_reach_the_bars_from_a_worse_start_too():
    load = generate_load("deepseek-v3", seed=0).load[:12]
    cluster = eq.Cluster(32, 9)
    current = eq.solve(eq.PlacementProblem(load, cluster)).placement
    problem = eq.PlacementProblem(drift_load(load, 0.45, seed=1), cluster)
    assert 0.68 < balancedness_of(current, problem.load) < 0.73
    check_bars(current, problem)


def recorded(name):
    """Return the load of the MoE layers of a recording."""
    load = read_load(real_load(name)).load
    return load[load.sum(axis=1) > 0]


@pytest.mark.parametrize("way", ["to decode", "to prefill"])
def test_few_transfers_serve_the_other_phase_of_a_recorded_model(way):
    decode, prefill = recorded("deepseek_v3_decode_in1000out1000.json"), recorded("deepseek_v3_prefill_in1024.json")
    load, moved = (prefill, decode) if way == "to decode" else (decode, prefill)
    cluster = eq.Cluster(32, 9)
    current = eq.solve(eq.PlacementProblem(load, cluster)).placement
    problem = eq.PlacementProblem(moved, cluster)
    assert balancedness_of(current, problem.load) < 0.73
    check_bars(current, problem)


def swapped(load):
    """Return the load with the hottest and the coldest expert of each layer in each other's place."""
    out, rows = load.copy(), np.arange(len(load))
    hot, cold = load.argmax(axis=1), load.argmin(axis=1)
    out[rows, hot], out[rows, cold] = load[rows, cold], load[rows, hot]
    return out


@pytest.mark.parametrize("change", ["drift", "swap", "dead", "one expert", "nothing"])
def test_no_layer_is_worse_off_with_more_transfers(change):
    load = generate_load("deepseek-v3", seed=0).load[:4]
    cluster = eq.Cluster(32, 9)
    current = eq.solve(eq.PlacementProblem(load, cluster), "plain-greedy").placement
    expert = np.arange(256)
    moved = {
        "drift": drift_load(load, 0.3, seed=1).load,
        "swap": swapped(load),
        "dead": np.where(expert < 64, 0.0, load),
        "one expert": np.where(expert == 3, 100.0, 0.0) + np.zeros_like(load),
        "nothing": np.zeros_like(load),
    }[change]
    problem = eq.PlacementProblem(moved, cluster)
    largest = current.rank_load(moved).max(axis=1)
    for budget in range(24):
        metrics = eq.solve(problem, current=current, max_transfers=budget).metrics
        assert (metrics.max_rank_load <= largest * (1 + 1e-9)).all()
        largest = metrics.max_rank_load


def test_a_shared_limit_saves_at_least_the_tokens_of_an_equal_one():
    current, problem = drifted()
    equal = eq.solve(problem, current=current, max_transfers=8)
    shared = eq.solve(problem, current=current, max_transfers_total=48)
    assert shared.metrics.max_rank_load.sum() <= equal.metrics.max_rank_load.sum()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_change_nothing(threads):
    current, problem = drifted(3)
    plan = eq.solve(problem, current=current, max_transfers_total=40, threads=threads)
    assert plan.placement == eq.solve(problem, current=current, max_transfers_total=40).placement


def test_layers_are_planned_independently_of_their_neighbours():
    current, problem = drifted(4)
    one = eq.PlacementProblem(problem.load[2:3], problem.cluster)
    alone = eq.solve(one, current=eq.Placement(current.physical_to_logical[2:3], 32, 256), max_transfers=9)
    together = eq.solve(problem, current=current, max_transfers=9)
    assert (alone.placement.physical_to_logical[0] == together.placement.physical_to_logical[2]).all()


def test_a_limit_on_each_layer_holds_under_a_limit_on_all_of_them():
    current, problem = two_ranks()
    assert eq.solve(problem, current=current, max_transfers=0, max_transfers_total=8).placement == current
    current, problem = drifted()
    plan = eq.solve(problem, current=current, max_transfers=4, max_transfers_total=1000)
    assert eq.count_transfers(current, plan).max() == 4


@pytest.mark.parametrize("limit", [10**8, 2**63, 10**30])
@pytest.mark.parametrize("name", ["max_transfers", "max_transfers_total"])
def test_a_limit_beyond_all_slots_is_as_good_as_all_slots(name, limit):
    current, problem = two_ranks()
    assert (
        eq.solve(problem, current=current, **{name: limit}).placement
        == eq.solve(problem, current=current, **{name: 6}).placement
    )


def test_a_budget_that_admits_the_plan_made_anew_is_no_worse_than_no_limit():
    current, problem = without_descent_to_level()
    anew = eq.solve(problem, current=current)
    takes = int(eq.count_transfers(current, anew)[0])
    less = eq.solve(problem, current=current, max_transfers=takes - 1).metrics.max_rank_load
    assert (anew.metrics.max_rank_load < 0.99 * less).all(), "steps reach this too: the instance shows nothing"
    for limit in ({"max_transfers": takes}, {"max_transfers_total": takes}, {"max_transfers": 16}):
        plan = eq.solve(problem, current=current, **limit)
        assert (plan.metrics.max_rank_load <= anew.metrics.max_rank_load).all()
        assert plan.provenance.parameters["anew"]["strategy"] == "joint-descent"


@pytest.mark.parametrize("scale", [1e-6, 1 / 3, 7.0, 1e9])
def test_a_shared_limit_goes_to_the_same_layers_whatever_the_scale_of_the_load(scale):
    load, cluster = np.array([[5.0, 8, 5], [8, 3, 6]]), eq.Cluster(2, 2)
    current = eq.Placement([[2, 0, 1, 1], [0, 1, 2, 0]], 2, 3)
    plan = eq.solve(eq.PlacementProblem(load, cluster), current=current, max_transfers_total=2)
    scaled = eq.solve(eq.PlacementProblem(load * scale, cluster), current=current, max_transfers_total=2)
    assert plan.placement == scaled.placement


def test_layers_that_gain_the_same_get_a_shared_limit_from_the_lowest_on():
    current, problem = two_ranks()
    alike = eq.PlacementProblem(np.tile(problem.load, (3, 1)), problem.cluster)
    three = eq.Placement(np.tile(current.physical_to_logical, (3, 1)), 2, 4)
    plan = eq.solve(alike, current=three, max_transfers_total=2)
    assert eq.count_transfers(three, plan).tolist() == [1, 1, 0]


REFUSED = [
    ({"max_transfers": -1}, InvalidInputError, "max_transfers is -1"),
    ({"max_transfers": 1.5}, InvalidInputError, "max_transfers is 1.5"),
    ({"max_transfers": np.array([1, 2])}, InvalidInputError, "whole number of at least 0, or None"),
    ({"lost_ranks": 1}, InvalidInputError, "lost_ranks is 1; it must list ranks"),
    ({"lost_ranks": None}, InvalidInputError, "lost_ranks is None; it must list ranks"),
    ({"lost_ranks": [4]}, InvalidInputError, "lost_ranks names 4; it must name ranks from 0 to 1"),
    ({"lost_ranks": [0, 1]}, InvalidInputError, "names all 2 ranks"),
    ({"lost_ranks": [0]}, InfeasibleError, "2 slots on the 1 rank that is left cannot hold 4"),
]


@pytest.mark.parametrize(("asked", "error", "sentence"), REFUSED)
def test_what_cannot_be_is_refused_with_the_reason(asked, error, sentence):
    problem = eq.PlacementProblem([[4, 3, 2, 1]], eq.Cluster(2, 2))
    with pytest.raises(error, match=sentence):
        eq.solve(problem, current=eq.Placement([[0, 1, 2, 3]], 2, 4), **asked)


def test_experts_that_no_slot_holds_need_transfers():
    problem = eq.PlacementProblem([[4, 3, 2, 1]], eq.Cluster(2, 3))
    with pytest.raises(InfeasibleError, match="layer 0 has 1 experts that no slot holds, and max_transfers is 0"):
        eq.solve(problem, current=eq.Placement([[0, 1, 1, 2, -1, 2]], 2, 4), max_transfers=0)


def test_a_placement_of_another_model_is_refused():
    problem = eq.PlacementProblem([[4, 3, 2, 1]], eq.Cluster(2, 2))
    with pytest.raises(InvalidPlacementError, match="pass the placement of the same model"):
        eq.solve(problem, current=eq.Placement([[0, 1, 2, 0]], 2, 3))


def test_limits_without_a_placement_in_force_are_refused():
    problem = eq.PlacementProblem([[4, 3, 2, 1]], eq.Cluster(2, 2))
    with pytest.raises(InvalidInputError, match="pass current=placement"):
        eq.solve(problem, max_transfers=3)
    for lost in (1, None):
        with pytest.raises(InvalidInputError, match="it must list ranks"):
            eq.solve(problem, lost_ranks=lost)


def test_transfers_are_counted_between_placements_and_plans():
    current, problem = two_ranks()
    plan = eq.solve(problem, current=current, max_transfers=2)
    assert eq.count_transfers(current, plan).tolist() == eq.count_transfers(current, plan.placement).tolist() == [1]
    with pytest.raises(InvalidInputError, match="target is a int; pass a Placement, or a Plan"):
        eq.count_transfers(current, 3)
    with pytest.raises(InvalidPlacementError, match="current has 1 layers and target has 2"):
        eq.count_transfers(current, eq.Placement(np.tile(current.physical_to_logical, (2, 1)), 2, 4))
