"""Expert groups stay whole on nodes when the placement in force is changed."""

from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.certificate import check_placement
from equipoise.errors import InfeasibleError
from equipoise.load import drift_load, generate_load
from replans import check_replan


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
    check_replan(problem, current, [2, 3], plan)


def test_a_hierarchical_problem_with_uneven_nodes_keeps_groups_whole():
    load = generate_load("deepseek-v3", seed=3).load[:2]
    problem = eq.PlacementProblem(load, eq.Cluster(8, 72, num_nodes=4), 8)
    current = eq.solve(problem, "plain-greedy").placement
    plan = eq.solve(problem, "plain-greedy", current=current, lost_ranks=[3])
    check_replan(problem, current, [3], plan)
    node_of_slot = np.arange(576) // 144
    for row in plan.placement.physical_to_logical:
        for group in range(8):
            assert len(set(node_of_slot[(row >= 0) & (row // 32 == group)])) == 1


def test_groups_change_nodes_where_a_limit_lets_a_layer_be_planned_anew():
    load = np.array([[9.0, 9, 9, 9, 1, 1, 1, 1]])
    cluster = eq.Cluster(2, 4, num_nodes=2)
    current = eq.solve(eq.PlacementProblem(np.full((1, 8), 1.0), cluster, 4)).placement
    problem = eq.PlacementProblem(load, cluster, 4)
    assert eq.solve(problem, current=current, max_transfers=3).metrics.max_rank_load[0] == 36
    assert eq.solve(problem, current=current, max_transfers=4).metrics.max_rank_load[0] == 20


def test_replicas_on_the_wrong_node_are_not_dropped_without_a_word():
    problem = eq.PlacementProblem([[5.0, 5]], eq.Cluster(2, 2, 2), 2)
    current = eq.Placement([[0, 1, 1, 0]], 2, 2)
    for name in ("max_transfers", "max_transfers_total"):
        with pytest.raises(InfeasibleError, match=r"2 of its slots would .* Allow 1 transfer"):
            eq.solve(problem, current=current, **{name: 0})
    assert eq.solve(problem, current=current, max_transfers=1).provenance.stages["emptied"] == 2
