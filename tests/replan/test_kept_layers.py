"""Layers that stay as they are: too little gain, or too many that would change."""

from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import InvalidInputError
from replans import drifted


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
