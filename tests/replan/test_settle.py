"""What plug-ins move where nobody set a limit: a quarter of a plan made anew at most, for nearly all of its balance."""

from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.engines.planning import plan_next
from equipoise.engines.settings import Settings
from equipoise.load import generate_load
from equipoise.metrics import balancedness

ANEW = Settings(min_gain=0.0)


@pytest.mark.parametrize(("slots", "ranks"), [(288, 32), (320, 64)])
@pytest.mark.parametrize("drift", [0.001, 0.02, 0.1])
def test_a_drift_is_followed_for_a_quarter_of_the_transfers_of_a_plan_made_anew(
    slots: int, ranks: int, drift: float
) -> None:
    load = generate_load("deepseek-v3").load[:8]
    in_force = plan_next(load, slots, 1, 1, ranks, ANEW).placement
    now = load * np.random.default_rng(1).lognormal(0, drift, load.shape)
    little, anew = (
        plan_next(now, slots, 1, 1, ranks, settings, in_force.physical_to_logical).placement
        for settings in (Settings(), ANEW)
    )
    reached = [balancedness(placement.rank_load(now)) for placement in (little, anew)]
    moved = [eq.count_transfers(in_force, placement).sum() for placement in (little, anew)]
    assert (reached[0] >= 0.99 * reached[1]).all()
    assert moved[0] <= 0.25 * moved[1]


def test_a_layer_that_would_change_much_for_a_finer_level_stops_at_a_rough_one() -> None:
    load = generate_load("deepseek-v3").load[:8]
    in_force = plan_next(load, 320, 1, 1, 64, ANEW).placement
    now = load * np.random.default_rng(1).lognormal(0, 0.1, load.shape)
    placement = plan_next(now, 320, 1, 1, 64, Settings(), in_force.physical_to_logical).placement
    above = 1 / balancedness(placement.rank_load(now)) - 1
    many = eq.count_transfers(in_force, placement) > 320 / 8
    assert (above[many] <= 0.009 + 1e-9).all()
    assert (above[many] > 0.003).any()
    assert (above[~many] <= 0.003 + 1e-9).all()
