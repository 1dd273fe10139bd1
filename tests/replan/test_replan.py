"""The next placement from the one in force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import equipoise as eq
from equipoise.certificate import check_placement
from equipoise.errors import InfeasibleError, InvalidInputError, InvalidPlacementError
from equipoise.load import drift_load, generate_load, read_load
from equipoise.replan.match_ranks import match_nodes
from equipoise.replan.remainder import count_kept
from real_loads import real_load


def drifted(layers=6):
    """Return a placement in force and the problem after a drift of 0.3, on 288 slots of 32 ranks."""
    load = generate_load("deepseek-v3", seed=0).load[:layers]
    cluster = eq.Cluster(32, 9)
    plan = eq.solve(eq.PlacementProblem(load, cluster), "plain-greedy")
    return plan.placement, eq.PlacementProblem(drift_load(load, 0.3, seed=1), cluster)


@st.composite
def situations(draw):
    """Return a problem, a placement in force of another shape with gaps, and lost ranks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers, ranks, slots = (int(rng.integers(1, n)) for n in (3, 7, 5))
    experts = int(rng.integers(1, ranks * slots + 1))
    problem = eq.PlacementProblem(rng.integers(0, 50, (layers, experts)), eq.Cluster(ranks, slots))
    old_ranks, old_slots = max(1, ranks + int(rng.integers(-2, 3))), max(1, slots + int(rng.integers(-1, 2)))
    current = eq.Placement(rng.integers(-1, experts, (layers, old_ranks * old_slots)), old_ranks, experts)
    lost = sorted(set(rng.integers(0, ranks, int(rng.integers(0, 3))).tolist()))
    return problem, current, lost


def check(problem, current, lost, plan):
    """Insist on what holds for every plan from a placement in force."""
    table = plan.placement.physical_to_logical.reshape(problem.num_layers, problem.cluster.num_ranks, -1)
    assert (table[:, lost] == -1).all()
    assert plan.placement.replica_count.min() >= 1
    rank_load = plan.placement.rank_load(problem.load)
    assert np.allclose(rank_load.max(axis=1), plan.metrics.max_rank_load)
    assert eq.count_transfers(current, plan.placement, lost).sum() == plan.provenance.stages["transfers"]
    old = current.physical_to_logical.reshape(problem.num_layers, current.num_ranks, -1)
    for layer, rank in itertools.product(range(problem.num_layers), range(min(current.num_ranks, table.shape[1]))):
        if rank in lost:
            continue
        for slot in range(min(old.shape[2], table.shape[2])):
            if old[layer, rank, slot] in table[layer, rank].tolist() and old[layer, rank, slot] >= 0:
                kept = table[layer, rank, slot] == old[layer, rank, slot]
                assert kept or old[layer, rank].tolist().count(old[layer, rank, slot]) > 1


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
    check(problem, current, lost, plan)


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
    check(problem, current, lost, plan)


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
    check(problem, current, lost, plan)


def test_renaming_ranks_leaves_as_few_transfers_as_the_best_of_all_renamings():
    rng = np.random.default_rng(0)
    cluster = eq.Cluster(4, 3)
    for seed in range(20):
        problem = eq.PlacementProblem(rng.integers(1, 50, (1, 8)), cluster)
        other = eq.PlacementProblem(rng.integers(1, 50, (1, 8)), cluster)
        current = eq.solve(other, "plain-greedy", seed=seed).placement
        sets = eq.solve(problem, "plain-greedy").placement.physical_to_logical.reshape(4, 3)
        fewest = min(
            int(eq.count_transfers(current, eq.Placement(sets[list(order)].reshape(1, -1), 4, 8)).sum())
            for order in itertools.permutations(range(4))
        )
        plan = eq.solve(problem, "plain-greedy", current=current)
        assert eq.count_transfers(current, plan.placement).sum() == fewest


def test_experts_that_a_rank_must_hold_twice_are_counted_twice_when_ranks_are_renamed():
    problem = eq.PlacementProblem([[0, 0]], eq.Cluster(2, 3))
    current = eq.Placement([[0, 0, 0, 1, 1, 0]], 2, 2)
    plan = eq.solve(problem, current=current)
    sets = plan.placement.physical_to_logical.reshape(2, 3)
    other = eq.Placement(sets[::-1].reshape(1, 6), 2, 2)
    assert eq.count_transfers(current, plan) <= eq.count_transfers(current, other)


@settings(max_examples=60)
@given(situations())
def test_planning_anew_from_a_plan_made_anew_changes_nothing(situation):
    problem, current, lost = situation
    assume((problem.cluster.num_ranks - len(lost)) * problem.cluster.slots_per_rank >= problem.num_logical_experts)
    assume(len(lost) < problem.cluster.num_ranks)
    plan = eq.solve(problem, current=current, lost_ranks=lost)
    again = eq.solve(problem, current=plan, lost_ranks=lost)
    assert again.placement == plan.placement


def test_nodes_are_renamed_too_and_groups_stay_whole():
    load = generate_load("deepseek-v3", seed=3).load[:3]
    problem = eq.PlacementProblem(load, eq.Cluster(16, 18, num_nodes=4), num_expert_groups=8)
    plan = eq.solve(problem, "plain-greedy")
    whole = np.roll(plan.placement.physical_to_logical, 72, axis=1)
    again = eq.solve(problem, "plain-greedy", current=eq.Placement(whole, 16, 256))
    check_placement(problem, again.placement)
    assert again.provenance.stages["transfers"] == 0


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


def test_groups_stay_on_their_nodes_within_a_limit():
    load = generate_load("deepseek-v3", seed=3).load[:3]
    cluster = eq.Cluster(16, 18, num_nodes=4)
    current = eq.solve(eq.PlacementProblem(load, cluster, 8), "plain-greedy").placement
    problem = eq.PlacementProblem(drift_load(load, 0.3, seed=1), cluster, 8)
    plan = eq.solve(problem, current=current, max_transfers=12)
    check_placement(problem, plan.placement)
    assert (
        plan.metrics.mean_balancedness
        > (problem.load.sum(axis=1) / 16 / current.rank_load(problem.load).max(axis=1)).mean()
    )


def test_a_lost_node_hands_its_groups_to_the_others():
    load = generate_load("deepseek-v3", seed=3).load[:2]
    problem = eq.PlacementProblem(load, eq.Cluster(8, 72, num_nodes=4), 8)
    current = eq.solve(problem, "plain-greedy").placement
    plan = eq.solve(problem, "plain-greedy", current=current, lost_ranks=[2, 3])
    check(problem, current, [2, 3], plan)


def test_a_hierarchical_problem_with_uneven_nodes_keeps_groups_whole():
    load = generate_load("deepseek-v3", seed=3).load[:2]
    problem = eq.PlacementProblem(load, eq.Cluster(8, 72, num_nodes=4), 8)
    current = eq.solve(problem, "plain-greedy").placement
    plan = eq.solve(problem, "plain-greedy", current=current, lost_ranks=[3])
    check(problem, current, [3], plan)
    node_of_slot = np.arange(576) // 144
    for row in plan.placement.physical_to_logical:
        for group in range(8):
            assert len(set(node_of_slot[(row >= 0) & (row // 32 == group)])) == 1


def test_the_frontier_agrees_with_what_a_limit_reaches():
    current, problem = drifted(3)
    curve = eq.frontier(problem, current, bytes_per_expert=1000)
    for k in (0, 4, 16):
        plan = eq.solve(problem, current=current, max_transfers=k)
        assert np.allclose(plan.metrics.balancedness, curve.balancedness[:, k])
    assert 0 < curve.knee < len(curve.transfers)
    assert "<- knee" in curve.summary()


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


def two_ranks():
    """Return the placement of one load on 2 ranks of 3 slots, and the problem after the load has changed."""
    cluster = eq.Cluster(2, 3)
    return eq.solve(eq.PlacementProblem([[8, 2, 1, 1]], cluster)).placement, eq.PlacementProblem(
        [[1, 2, 1, 8]], cluster
    )


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


def without_descent_to_level():
    """Return a placement in force from which steps end far above the plan made anew, which takes 7 of 16 transfers."""
    rng = np.random.default_rng(4)
    cluster, experts = eq.Cluster(8, 2), 12
    load = rng.lognormal(0, 1.5, (1, experts))
    current = eq.solve(eq.PlacementProblem(rng.permuted(load, axis=1), cluster)).placement
    return current, eq.PlacementProblem(load, cluster)


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


@settings(max_examples=60)
@given(situations())
def test_more_transfers_are_never_worse_and_the_frontier_knows_what_each_budget_reaches(situation):
    problem, current, lost = situation
    assume(len(lost) < problem.cluster.num_ranks <= problem.num_logical_experts)
    try:
        curve = eq.frontier(problem, current, lost_ranks=lost).balancedness
    except InfeasibleError:
        return
    anew = eq.solve(problem, current=current, lost_ranks=lost)
    takes, mean = eq.count_transfers(current, anew, lost), anew.metrics.mean_rank_load
    largest = np.inf
    for k in range(problem.cluster.num_slots + 1):
        known = curve[:, min(k, curve.shape[1] - 1)]
        if np.isnan(known).any():
            continue
        metrics = eq.solve(problem, current=current, lost_ranks=lost, max_transfers=k).metrics
        assert np.allclose(metrics.balancedness, known)
        assert (metrics.max_rank_load <= largest * (1 + 1e-9)).all()
        largest = metrics.max_rank_load
        if 8 * k >= problem.cluster.num_slots:
            asked = np.maximum(anew.metrics.max_rank_load, 1.001 * mean)
            assert ((largest <= asked * (1 + 1e-9)) | (takes > k)).all()


def test_groups_change_nodes_where_a_limit_lets_a_layer_be_planned_anew():
    load = np.array([[9.0, 9, 9, 9, 1, 1, 1, 1]])
    cluster = eq.Cluster(2, 4, num_nodes=2)
    current = eq.solve(eq.PlacementProblem(np.full((1, 8), 1.0), cluster, 4)).placement
    problem = eq.PlacementProblem(load, cluster, 4)
    assert eq.solve(problem, current=current, max_transfers=3).metrics.max_rank_load[0] == 36
    assert eq.solve(problem, current=current, max_transfers=4).metrics.max_rank_load[0] == 20


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


def test_replicas_on_the_wrong_node_are_not_dropped_without_a_word():
    problem = eq.PlacementProblem([[5.0, 5]], eq.Cluster(2, 2, 2), 2)
    current = eq.Placement([[0, 1, 1, 0]], 2, 2)
    for name in ("max_transfers", "max_transfers_total"):
        with pytest.raises(InfeasibleError, match=r"2 of its slots would .* Allow 1 transfer"):
            eq.solve(problem, current=current, **{name: 0})
    assert eq.solve(problem, current=current, max_transfers=1).provenance.stages["emptied"] == 2


REFUSED = [
    ({"max_transfers": -1}, InvalidInputError, "max_transfers is -1"),
    ({"max_transfers": 1.5}, InvalidInputError, "max_transfers is 1.5"),
    ({"max_transfers": np.array([1, 2])}, InvalidInputError, "whole number of at least 0, or None"),
    ({"lost_ranks": 1}, InvalidInputError, "lost_ranks is 1; it must list ranks"),
    ({"lost_ranks": None}, InvalidInputError, "lost_ranks is None; it must list ranks"),
    ({"lost_ranks": [4]}, InvalidInputError, "lost_ranks names 4; it must name ranks from 0 to 1"),
    ({"lost_ranks": [0, 1]}, InvalidInputError, "names all 2 ranks"),
    ({"lost_ranks": [0]}, InfeasibleError, "2 slots on the 1 ranks that are left cannot hold 4"),
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


def test_the_frontier_says_what_to_pass():
    current, problem = two_ranks()
    with pytest.raises(InvalidInputError, match="problem is 3; pass a PlacementProblem"):
        eq.frontier(3, current)
    with pytest.raises(InvalidInputError, match="current is a int; pass a Placement, or a Plan"):
        eq.frontier(problem, 3)
    with pytest.raises(InvalidInputError, match="lost_ranks is 3; it must list ranks"):
        eq.frontier(problem, current, lost_ranks=3)


def test_transfers_are_counted_between_placements_and_plans():
    current, problem = two_ranks()
    plan = eq.solve(problem, current=current, max_transfers=2)
    assert eq.count_transfers(current, plan).tolist() == eq.count_transfers(current, plan.placement).tolist() == [1]
    with pytest.raises(InvalidInputError, match="target is a int; pass a Placement, or a Plan"):
        eq.count_transfers(current, 3)
    with pytest.raises(InvalidPlacementError, match="current has 1 layers and target has 2"):
        eq.count_transfers(current, eq.Placement(np.tile(current.physical_to_logical, (2, 1)), 2, 4))


def test_a_layer_stays_as_it_is_unless_its_busiest_rank_gets_lighter_by_enough():
    current, problem = drifted(layers=6)
    before = current.rank_load(problem.load).max(axis=1)
    free = eq.solve(problem, current=current)
    gain = 1 - free.metrics.max_rank_load / before
    for least in (0.0, float(np.median(gain)), 0.9):
        plan = eq.solve(problem, current=current, min_gain=least)
        stays = gain < least
        assert np.array_equal(plan.placement.physical_to_logical[stays], current.physical_to_logical[stays])
        assert np.array_equal(plan.placement.physical_to_logical[~stays], free.placement.physical_to_logical[~stays])
        assert plan.provenance.stages["transfers"] == eq.count_transfers(current, plan.placement).sum()
    assert 0 < (gain < np.median(gain)).sum() < 6


def test_the_layers_that_change_are_those_that_save_most_tokens():
    current, problem = drifted(layers=6)
    free = eq.solve(problem, current=current)
    saved = current.rank_load(problem.load).max(axis=1) - free.metrics.max_rank_load
    for most in range(7):
        plan = eq.solve(problem, current=current, max_layers=most)
        changed = (plan.placement.physical_to_logical != current.physical_to_logical).any(axis=1)
        assert set(np.flatnonzero(changed)) == set(np.argsort(-saved, kind="stable")[:most])


def test_what_a_limit_on_all_layers_would_give_layers_that_stay_goes_to_those_that_change():
    current, problem = drifted(layers=6)
    for most in (1, 2, 3):
        plan = eq.solve(problem, current=current, max_transfers_total=24, max_layers=most)
        spent = eq.count_transfers(current, plan.placement)
        assert (spent > 0).sum() <= most
        assert spent.sum() <= 24
        spread = eq.solve(problem, current=current, max_transfers_total=24)
        kept = np.argsort(-(current.rank_load(problem.load).max(axis=1) - spread.metrics.max_rank_load))[:most]
        assert spent.sum() > eq.count_transfers(current, spread.placement)[kept].sum()
        assert plan.metrics.max_rank_load[kept].sum() < spread.metrics.max_rank_load[kept].sum()


def test_layers_that_cannot_stay_change_whatever_the_limit_and_count_first():
    load = np.array([[4.0, 4.0, 1.0, 1.0]] * 3)
    torn = eq.Placement([[0, 1, 2, 3], [0, 2, 1, -1], [0, 1, 2, 3]], 2, 4)  # layer 1 lacks expert 3
    problem = eq.PlacementProblem(load, eq.Cluster(2, 2))
    changed = [
        np.flatnonzero((plan.placement.physical_to_logical != torn.physical_to_logical).any(axis=1)).tolist()
        for plan in (eq.solve(problem, current=torn, max_layers=most) for most in (0, 1, 2))
    ]
    assert changed == [[1], [1], [0, 1]]


def test_an_expert_twice_on_a_rank_is_a_reason_to_change_where_there_is_no_need_for_it():
    problem = eq.PlacementProblem([[6, 6, 6, 6]], eq.Cluster(2, 3))
    doubled = eq.Placement([[0, 0, 1, 2, 3, 3]], 2, 4)
    plan = eq.solve(problem, current=doubled, min_gain=0.5)
    assert plan.placement.num_duplicates.sum() == 0


@pytest.mark.parametrize(
    ("limit", "says"), [({"min_gain": -0.1}, "min_gain is -0.1"), ({"max_layers": -1}, "max_layers is -1")]
)
def test_a_limit_on_layers_that_breaks_its_rule_is_refused(limit, says):
    current, problem = drifted(layers=1)
    with pytest.raises(InvalidInputError, match=says):
        eq.solve(problem, current=current, **limit)


@pytest.mark.parametrize("nodes", [1, 2, 3])
def test_renaming_nodes_and_ranks_leaves_as_few_transfers_as_the_best_of_all_renamings(nodes):
    random = np.random.default_rng(nodes)
    for _ in range(20):
        new, old = (random.integers(-1, 9, (1, nodes * 2, 2)).astype(np.int32) for _ in range(2))
        matched = match_nodes(new, old, nodes, 1)
        by_node = new.reshape(nodes, 2, 2)
        renamings = itertools.product(itertools.permutations(range(nodes)), *([[(0, 1), (1, 0)]] * nodes))
        ways = [np.concatenate([by_node[n][list(turn)] for n, turn in zip(order, turns, strict=True)])[None]
                for order, *turns in renamings]  # fmt: skip
        kept = [int(count_kept(way.astype(np.int32), old).sum()) for way in ways]
        assert int(count_kept(matched, old).sum()) == max(kept)
        assert any(np.array_equal(matched, way) for way in ways)
