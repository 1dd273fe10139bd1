"""What every plug-in asks for: the next placement, by the one re-planner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import equipoise as eq
from equipoise.engines.planning import plan_next
from equipoise.engines.settings import Settings
from equipoise.engines.vllm_ascend import EquipoisePolicy
from equipoise.errors import InvalidInputError

SHAPES = [(8, 40, 1, 1), (8, 40, 8, 4), (4, 40, 4, 2), (2, 40, 3, 2)]  # ranks, slots, groups, nodes


def loads(seed, layers=3, experts=32, drift=0.3):
    """Return two loads, the second of which the first has drifted to."""
    random = np.random.default_rng(seed)
    first = np.rint(1000 * random.lognormal(0, 1, (layers, experts)))
    return first, np.rint(first * random.lognormal(0, drift, first.shape))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SHAPES), st.sampled_from([0.0, 0.01, 0.5]))
def test_a_plug_in_decides_what_solve_decides(seed, shape, drift):
    ranks, slots, groups, nodes = shape
    first, second = loads(seed, drift=drift)
    in_force = plan_next(first, slots, groups, nodes, ranks, Settings()).placement
    hierarchical = groups % nodes == 0
    cluster = eq.Cluster.from_slots(ranks, slots, nodes if hierarchical else 1)
    problem = eq.PlacementProblem(second, cluster, groups if hierarchical else None)
    plan = eq.solve(problem, current=in_force, min_gain=0.0)
    found = plan_next(second, slots, groups, nodes, ranks, Settings(), in_force.physical_to_logical)
    assert found.placement == plan.placement
    assert found.certificate.max_rank_load.tolist() == plan.certificate.max_rank_load.tolist()


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_nodes_that_are_only_named_otherwise_move_nothing(turn):
    load, _ = loads(0, experts=64)
    placement = plan_next(load, 80, 8, 4, 8, Settings()).placement
    turned = np.roll(placement.physical_to_logical.reshape(3, 4, -1), turn, axis=1).reshape(3, -1)
    found = plan_next(load, 80, 8, 4, 8, Settings(), turned)
    assert np.array_equal(found.placement.physical_to_logical, turned)
    assert found.stayed == 3


def test_groups_that_lie_on_two_nodes_are_brought_together_even_where_that_makes_a_rank_heavier():
    load = np.array([[5.0, 3.0, 4.0, 4.0]])
    torn = np.array([[0, 2, 1, 3]])  # level, but group {0, 1} is on both nodes
    found = plan_next(load, 4, 2, 2, 2, Settings(), torn)
    nodes = found.placement.physical_to_logical.reshape(2, 2)
    assert {frozenset(node) for node in nodes.tolist()} == {frozenset({0, 1}), frozenset({2, 3})}


def test_ascends_policy_decides_what_solve_decides():
    first, second = loads(1)
    held = eq.solve(eq.PlacementProblem(first, eq.Cluster(8, 5))).placement
    tokens = np.take_along_axis(second / held.replica_count, held.physical_to_logical.astype(np.int64), axis=1)
    table = held.physical_to_logical.reshape(3, 8, 5)
    _, _, new = EquipoisePolicy(Settings()).rebalance_experts(table, tokens.reshape(table.shape))
    load = np.zeros_like(second)
    np.add.at(load, (np.arange(3)[:, None], held.physical_to_logical), tokens)
    plan = eq.solve(eq.PlacementProblem(load, eq.Cluster(8, 5)), current=held, min_gain=0.0)
    assert np.array_equal(new.reshape(3, -1), plan.placement.physical_to_logical)


def test_a_table_of_other_experts_is_refused():
    with pytest.raises(InvalidInputError, match="must be an expert from 0 to 3, or -1"):
        plan_next(np.ones((1, 4)), 4, 1, 1, 2, Settings(), np.array([[0, 1, 2, 4]]))
