"""Ranks and nodes are alike: a plan made anew is renamed so that as much as possible stays."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings

import equipoise as eq
from equipoise.certificate import check_placement
from equipoise.load import generate_load
from equipoise.replan.match_ranks import match_nodes
from equipoise.replan.remainder import count_kept
from replans import situations


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
