"""Re-planning in time: as fast as a plan without a placement in force, and with as few transfers as that takes."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings

import equipoise as eq
from equipoise.certificate import check_placement
from equipoise.checker import check_time
from equipoise.errors import InfeasibleError, InvalidInputError
from equipoise.load import generate_load
from equipoise.replan.active import fill_dormant, match_active
from equipoise.replan.remainder import count_kept
from replans import check_replan, situations

H200 = eq.LatencyModel(fixed=19.6, floor=11.7, base=4.2, per_token=0.063)
FEW, SOME, MANY = 64.0, 2000.0, (64.0, 2000.0, 40_000.0)
FLAT, BY_NODE = (eq.Cluster(4, 8), None), (eq.Cluster(4, 10, 2), 4)


def asked(load: object, cluster: eq.Cluster, groups: int | None, routed: object) -> eq.PlacementProblem:
    return eq.PlacementProblem(load, cluster, groups, latency=H200, routed_per_step=routed)


def before_and_after(cluster: eq.Cluster, groups: int | None, routed: object) -> tuple[eq.Plan, eq.PlacementProblem]:
    """Return a plan in time, and the problem after its load has drifted."""
    rng = np.random.default_rng(cluster.num_slots)
    load = rng.pareto(0.8, (5, 24)) * 100
    drifted = load * np.exp(rng.normal(0, 0.5, load.shape))
    return eq.solve(asked(load, cluster, groups, routed)), asked(drifted, cluster, groups, routed)


every_kind = pytest.mark.parametrize(("where", "routed"), list(itertools.product((FLAT, BY_NODE), (FEW, SOME, MANY))))


@every_kind
def test_times_and_bounds_are_those_of_the_plan_without_what_is_in_force(where, routed) -> None:
    current, problem = before_and_after(*where, routed)
    plain, plan = eq.solve(problem), eq.solve(problem, current=current)
    assert plain.time is not None
    assert plan.time is not None
    assert np.allclose(plan.time.max_rank_time, plain.time.max_rank_time, rtol=1e-12, atol=0)
    assert np.allclose(plan.time.lower_bound, plain.time.lower_bound, rtol=1e-12, atol=0)
    for size, took in zip(problem.batch_sizes, plan.time.max_rank_time, strict=True):
        assert (check_time(problem, plan.placement, plan.shares_for(size), size).max(axis=1) == took).all()
    check_placement(problem, plan.placement)


@every_kind
def test_fewer_weights_move_than_to_the_plan_without_what_is_in_force(where, routed) -> None:
    current, problem = before_and_after(*where, routed)
    plan = eq.solve(problem, current=current)
    arrived = eq.count_transfers(current, plan)
    assert (arrived <= eq.count_transfers(current, eq.solve(problem))).all()
    assert arrived.sum() < eq.count_transfers(current, eq.solve(problem)).sum()
    check_replan(problem, current.placement, [], dataclasses.replace(plan, metrics=without_shares(plan, problem)))


def without_shares(plan: eq.Plan, problem: eq.PlacementProblem) -> eq.Metrics:
    """Return the metrics with all replicas active, which ``check_replan`` recounts."""
    busiest = plan.placement.rank_load(problem.load).max(axis=1)
    return dataclasses.replace(plan.metrics, max_rank_load=busiest)


@every_kind
def test_nothing_moves_where_the_plan_in_time_is_in_force(where, routed) -> None:
    current, _ = before_and_after(*where, routed)
    load = np.random.default_rng(where[0].num_slots).pareto(0.8, (5, 24)) * 100
    plan = eq.solve(asked(load, *where, routed), current=current)
    assert plan.provenance.stages["transfers"] == 0
    assert plan.placement == current.placement


def test_nothing_moves_where_nodes_and_ranks_of_the_plan_in_time_have_other_numbers() -> None:
    current, _ = before_and_after(*BY_NODE, MANY)
    load = np.random.default_rng(40).pareto(0.8, (5, 24)) * 100
    turned = current.placement.physical_to_logical.reshape(5, 2, 2, 10)[:, ::-1, ::-1].reshape(5, 40)
    there = eq.Placement(turned, 4, 24)
    plan = eq.solve(asked(load, *BY_NODE, MANY), current=there)
    assert plan.placement == there


@every_kind
def test_the_active_set_of_a_smaller_batch_lies_in_that_of_a_larger(where, routed) -> None:
    current, problem = before_and_after(*where, routed)
    plan = eq.solve(problem, current=current)
    assert plan.time is not None
    active = [shares.values > 0 for shares in plan.time.shares]
    assert all((smaller <= larger).all() for smaller, larger in itertools.pairwise(active))
    assert eq.Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def fewest(planned: np.ndarray, old: np.ndarray, nodes: int) -> int:
    """Return the fewest transfers of one layer over all renamings and all that dormant replicas, -1, may be."""
    ranks, slots = planned.shape
    each = ranks // nodes
    turns = list(itertools.permutations(range(each)))
    best = ranks * slots
    for order in itertools.permutations(range(nodes)):
        for within in itertools.product(turns, repeat=nodes):
            took = 0
            for b, (a, turn) in enumerate(zip(order, within, strict=True)):
                home = set(planned[a * each : (a + 1) * each].ravel().tolist()) - {-1}
                for h, g in enumerate(turn):
                    took += of_one_rank(planned[a * each + g], old[b * each + h], home)
            best = min(best, took)
    return best


def of_one_rank(active: np.ndarray, old: np.ndarray, home: set[int]) -> int:
    """Return the fewest experts that come to one rank, whatever its dormant replicas are; none twice without need."""
    mine, empty = [int(e) for e in active if e >= 0], int((active < 0).sum())
    there = {int(e) for e in old if e >= 0}
    ways = []
    for dormant in itertools.combinations_with_replacement(sorted(home), empty):
        doubled = len(dormant) - len(set(dormant) - set(mine))
        ways.append((doubled, sum(e not in there for e in (*mine, *dormant))))
    return min(ways)[1]


@pytest.mark.parametrize("nodes", [1, 2])
def test_ranks_and_dormant_replicas_take_as_few_transfers_as_the_best_of_all_choices(nodes: int) -> None:
    rng = np.random.default_rng(nodes)
    doubled = 0
    for _ in range(150):
        ranks, slots, experts = 4, int(rng.integers(1, 4)), int(rng.integers(2, 8))
        planned = rng.integers(-1, experts, (1, ranks, slots)).astype(np.int32)
        old = rng.integers(-1, experts, (1, ranks, int(rng.integers(1, 4)))).astype(np.int32)
        for n in range(nodes):  # a node holds experts of its own, and one at least
            mine = planned[0, n * ranks // nodes : (n + 1) * ranks // nodes]
            mine[mine >= 0] = (mine[mine >= 0] // nodes) * nodes + n
            mine[0, 0] = n
        source = match_active(planned, old, experts * nodes, nodes)
        assert sorted(source[0]) == list(range(ranks))
        held = np.take_along_axis(planned, source[:, :, None], axis=1)
        fill_dormant(held, old, rng.random((1, experts * nodes)), nodes)
        left = int((held < 0).sum())  # what nobody there holds has to be moved
        doubled += sum(len(set(rank[rank >= 0])) < (rank >= 0).sum() for rank in held[0])
        moved = int((held >= 0).sum() - count_kept(held, old).sum()) + left
        assert moved == fewest(planned[0], old[0], nodes)
    assert doubled > 0


def test_a_plan_moves_no_more_than_the_best_renaming_of_its_active_replicas() -> None:
    rng = np.random.default_rng(3)
    slept = 0
    for seed in range(20):
        problem, other = (asked(rng.pareto(0.8, (1, 9)) * 100, eq.Cluster(4, 4), None, (40.0, 900.0)) for _ in "ab")
        current = eq.solve(other, seed=seed)
        plain = eq.solve(problem, seed=seed)
        active = np.asarray(plain.shares_for(900.0)) > 0
        slept += int((~active).sum())
        planned = np.where(active, plain.placement.physical_to_logical, -1).reshape(4, 4)
        moved = eq.count_transfers(current, eq.solve(problem, seed=seed, current=current)).sum()
        assert moved == fewest(planned, current.placement.physical_to_logical.reshape(4, 4), 1)
    assert slept > 0


@settings(max_examples=60)
@given(situations())
def test_any_placement_can_be_in_force(situation) -> None:
    problem, current, lost = situation
    assume((problem.cluster.num_ranks - len(lost)) * problem.cluster.slots_per_rank >= problem.num_logical_experts)
    assume(len(lost) < problem.cluster.num_ranks)
    problem = dataclasses.replace(problem, latency=H200, routed_per_step=(20.0, 3000.0))
    plan = eq.solve(problem, current=current, lost_ranks=lost)
    check_replan(problem, current, lost, dataclasses.replace(plan, metrics=without_shares(plan, problem)))
    assert plan.lost_ranks == tuple(lost)
    left = eq.Cluster(problem.cluster.num_ranks - len(lost), problem.cluster.slots_per_rank)
    alone = eq.solve(dataclasses.replace(problem, cluster=left))
    assert alone.time is not None
    assert plan.time is not None
    assert np.allclose(plan.time.max_rank_time, alone.time.max_rank_time, rtol=1e-12, atol=0)
    assert np.allclose(plan.time.lower_bound, alone.time.lower_bound, rtol=1e-12, atol=0)
    again = eq.solve(problem, current=plan)
    assert again.lost_ranks == tuple(lost)
    assert again.provenance.stages["transfers"] == 0
    assert eq.Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def test_a_rank_that_is_back_gets_experts_again() -> None:
    current, problem = before_and_after(*FLAT, MANY)
    without = eq.solve(problem, current=current, lost_ranks=[1])
    assert without.lost_ranks == (1,)
    assert (without.placement.physical_to_logical.reshape(5, 4, 8)[:, 1] == -1).all()
    back = eq.solve(problem, current=without, restored_ranks=[1])
    plain = eq.solve(problem)
    assert back.lost_ranks == ()
    assert back.time is not None
    assert plain.time is not None
    assert np.allclose(back.time.max_rank_time, plain.time.max_rank_time, rtol=1e-12, atol=0)


@pytest.mark.parametrize("routed", [FEW, MANY])
def test_where_slots_cost_nothing_but_tokens_the_re_plan_is_that_of_tokens(routed) -> None:
    model = eq.LatencyModel(fixed=0, floor=0, base=0, per_token=0.1)
    for where in (FLAT, BY_NODE):
        current, problem = before_and_after(*where, routed)
        problem = dataclasses.replace(problem, latency=model)
        plan = eq.solve(problem, current=current)
        assert plan.placement == eq.solve(problem.in_tokens, current=current).placement


def test_the_re_plan_depends_neither_on_threads_nor_on_the_order_of_layers() -> None:
    current, problem = before_and_after(*FLAT, MANY)
    plan = eq.solve(problem, current=current, threads=1)
    assert eq.solve(problem, current=current, threads=3).to_json() == plan.to_json()
    turned = eq.Placement(current.placement.physical_to_logical[::-1], 4, 24)
    other = eq.solve(dataclasses.replace(problem, load=problem.load[::-1]), current=turned)
    assert (other.placement.physical_to_logical[::-1] == plan.placement.physical_to_logical).all()
    assert (np.asarray(other.shares)[::-1] == np.asarray(plan.shares)).all()


def test_on_a_generated_load_what_sleeps_is_what_is_there() -> None:
    load = generate_load("deepseek-v3", seed=0).load[:2]
    problem = asked(load, eq.Cluster(32, 9), None, 4 * 32 * 8)
    current = eq.Placement(np.tile(np.arange(288) % 256, (2, 1)), 32, 256)
    plan = eq.solve(problem, current=current)
    assert plan.shares is not None
    table, old = plan.placement.physical_to_logical, current.physical_to_logical
    dormant = np.asarray(plan.shares) == 0
    assert dormant.sum() > 20
    assert (table[dormant] == old[dormant]).all()


@pytest.mark.parametrize("limit", ["max_transfers", "max_transfers_total"])
def test_limits_on_transfers_are_refused_with_the_way_out(limit: str) -> None:
    current, problem = before_and_after(*FLAT, FEW)
    with pytest.raises(InvalidInputError, match=rf"^{limit} is 3.*limit them with max_layers or min_gain, or re-plan"):
        eq.solve(problem, current=current, **{limit: 3})


def test_nodes_that_are_left_with_unequal_ranks_are_refused_where_groups_stay_whole() -> None:
    problem = asked(np.ones((1, 8)), eq.Cluster(6, 4, 2), 2, FEW)
    current = eq.solve(problem)
    with pytest.raises(InfeasibleError, match=r"spread unevenly.*num_expert_groups=None"):
        eq.solve(problem, current=current, lost_ranks=[0])
    plan = eq.solve(problem, current=current, lost_ranks=[0, 4])
    table = plan.placement.physical_to_logical.reshape(2, 12)
    assert not set(table[0].tolist()) & set(table[1].tolist()) - {-1}
    with pytest.raises(InfeasibleError, match="cannot hold 8 logical experts"):
        eq.solve(problem, current=current, lost_ranks=[0, 1, 2, 3, 4])


def all_active(problem: eq.PlacementProblem, placement: eq.Placement) -> np.ndarray:
    """Return the busiest rank's time of a placement whose replicas are all active [batch sizes, layers]."""
    even = eq.Shares.even(placement)
    return np.array([check_time(problem, placement, even, size).max(axis=1) for size in problem.batch_sizes])


@every_kind
def test_a_layer_that_stays_keeps_its_weights_and_is_no_slower_than_with_all_of_them_active(where, routed) -> None:
    current, problem = before_and_after(*where, routed)
    plan = eq.solve(problem, current=current.placement, max_layers=0)
    assert plan.placement == current.placement
    assert plan.provenance.stages["transfers"] == 0
    assert plan.time is not None
    assert (plan.time.max_rank_time <= all_active(problem, plan.placement) * (1 + 1e-9)).all()
    for size, took in zip(problem.batch_sizes, plan.time.max_rank_time, strict=True):
        assert (check_time(problem, plan.placement, plan.shares_for(size), size).max(axis=1) == took).all()
    anew = eq.solve(problem).time
    assert anew is not None
    assert (plan.time.lower_bound <= anew.max_rank_time * (1 + 1e-9)).all()
    active = [shares.values > 0 for shares in plan.time.shares]
    assert all((smaller <= larger).all() for smaller, larger in itertools.pairwise(active))
    assert eq.Plan.from_json(plan.to_json()).to_json() == plan.to_json()


@every_kind
def test_a_layer_that_stays_is_no_slower_than_with_the_active_replicas_of_the_plan_in_force(where, routed) -> None:
    current, problem = before_and_after(*where, routed)
    plan = eq.solve(problem, current=current, max_layers=0)
    assert plan.time is not None
    before = np.array([
        check_time(problem, current.placement, current.shares_for(size), size).max(axis=1)
        for size in problem.batch_sizes
    ])  # fmt: skip
    most = all_active(problem, current.placement)
    within = (before <= most).all(axis=0)
    assert within.any()
    # Together: each size in parts of what it takes with all replicas active, beyond what every plan takes.
    known, found = (
        ((took - H200.fixed) / (most - H200.fixed)).sum(axis=0) for took in (before, plan.time.max_rank_time)
    )
    assert (found[within] <= known[within] * (1 + 1e-9)).all()


@every_kind
def test_the_layers_that_change_are_those_that_save_most_time(where, routed) -> None:
    current, problem = before_and_after(*where, routed)
    free, kept = (eq.solve(problem, current=current, max_layers=most) for most in (5, 0))
    assert free.placement == eq.solve(problem, current=current).placement
    assert free.time is not None
    assert kept.time is not None
    saved = (kept.time.max_rank_time - free.time.max_rank_time).mean(axis=0)
    for most in range(6):
        plan = eq.solve(problem, current=current, max_layers=most)
        assert plan.time is not None
        moved = np.isin(np.arange(5), np.argsort(-saved, kind="stable")[:most])
        table = plan.placement.physical_to_logical
        assert np.array_equal(table[moved], free.placement.physical_to_logical[moved])
        assert np.array_equal(table[~moved], current.placement.physical_to_logical[~moved])
        best = np.where(moved, free.time.max_rank_time, kept.time.max_rank_time)
        assert (plan.time.max_rank_time == best).all()
        assert plan.provenance.stages["transfers"] == eq.count_transfers(current, plan).sum()


def test_a_layer_stays_unless_its_busiest_rank_gets_faster_by_enough() -> None:
    current, problem = before_and_after(*FLAT, MANY)
    free, kept = eq.solve(problem, current=current).time, eq.solve(problem, current=current, max_layers=0).time
    assert free is not None
    assert kept is not None
    gain = 1 - free.max_rank_time.mean(axis=0) / kept.max_rank_time.mean(axis=0)
    least = float(np.median(gain))
    plan = eq.solve(problem, current=current, min_gain=least)
    moved = (plan.placement.physical_to_logical != current.placement.physical_to_logical).any(axis=1)
    assert (moved == (gain >= least)).all()
    assert 0 < moved.sum() < 5
    assert f"by layers that stay where a plan gains less than {least:.2%}" in plan.summary()
    same = eq.PlacementProblem(np.random.default_rng(32).pareto(0.8, (5, 24)) * 100, *FLAT, H200, MANY)
    assert eq.solve(same, current=current, min_gain=0).placement == current.placement


def test_a_layer_that_cannot_stay_changes_whatever_the_limit() -> None:
    _, problem = before_and_after(*FLAT, MANY)
    table = np.tile(np.arange(32, dtype=np.int64) % 24, (5, 1))
    table[1, 3], table[2] = -1, 0  # a slot that is empty, and a layer that has one expert alone
    current = eq.Placement(table, 4, 24)
    plan = eq.solve(problem, current=current, max_layers=0)
    changed = (plan.placement.physical_to_logical != table).any(axis=1)
    assert changed.tolist() == [False, True, True, False, False]
    held = eq.solve(dataclasses.replace(problem, cluster=eq.Cluster(4, 9)), current=current, max_layers=0)
    assert held.time is not None
    assert (held.placement.physical_to_logical >= 0).all()


def test_in_layers_without_spare_slots_or_tokens_all_stay_awake() -> None:
    problem = asked([[5.0, 4.0, 3.0, 1.0], [0.0] * 4], eq.Cluster(2, 2), None, MANY)
    plan = eq.solve(problem, current=eq.Placement([[0, 1, 2, 3]] * 2, 2, 4), max_layers=0)
    assert plan.shares is not None
    assert plan.shares.num_dormant.tolist() == [0, 0]


def test_where_slots_cost_nothing_but_tokens_layers_that_stay_are_those_of_tokens() -> None:
    model = eq.LatencyModel(fixed=0, floor=0, base=0, per_token=0.1)
    current, problem = before_and_after(*FLAT, FEW)
    problem = dataclasses.replace(problem, latency=model)
    tokens = eq.solve(problem.in_tokens, current=current, min_gain=0.15)
    stayed = (tokens.placement.physical_to_logical == current.placement.physical_to_logical).all(axis=1)
    assert 0 < stayed.sum() < 5
    assert eq.solve(problem, current=current, min_gain=0.15).placement == tokens.placement


def test_on_a_placement_that_serves_small_batches_sleep_is_worth_as_much_as_moving() -> None:
    load = generate_load("deepseek-v3", seed=0).load[:2]
    problem = asked(load, eq.Cluster(64, 5), None, 4 * 64 * 8)
    current = eq.solve(problem).placement  # without saying which of its replicas sleep
    plan, anew = eq.solve(problem, current=current, max_layers=0), eq.solve(problem)
    assert plan.time is not None
    assert anew.time is not None
    assert (plan.time.max_rank_time <= anew.time.max_rank_time * 1.01).all()
    assert (plan.time.max_rank_time < all_active(problem, current) * 0.9).all()
