from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import equipoise as eq
from equipoise.dispatch import cautious_shares, foresee
from equipoise.errors import InvalidInputError
from equipoise.load import drift_load, generate_load
from real_loads import real_load

LOAD = generate_load("deepseek-v3", seed=4).load[:4]
PLAN = eq.solve(eq.PlacementProblem(LOAD, eq.Cluster(32, 9)))


def test_a_refresh_moves_nothing_and_is_measured_on_the_new_load() -> None:
    drifted = drift_load(LOAD, 0.2, seed=1).load
    fresh = eq.refresh(PLAN, drifted)
    assert fresh.placement is PLAN.placement
    assert fresh.shares == eq.share(PLAN.placement, drifted)
    assert fresh.metrics.max_rank_load.tolist() == fresh.shares.rank_load(drifted).max(axis=1).tolist()
    assert (fresh.metrics.max_rank_load <= PLAN.placement.rank_load(drifted).max(axis=1)).all()
    assert fresh.provenance.problem_digest == eq.PlacementProblem(drifted, PLAN.cluster).digest
    assert eq.Plan.from_json(fresh.to_json()).to_json() == fresh.to_json()


def test_a_refresh_keeps_layer_ids_and_leaves_lost_ranks_alone() -> None:
    plan = eq.solve(eq.PlacementProblem(LOAD, eq.Cluster(33, 9)), current=PLAN, lost_ranks=[5]).named([3, 4, 5, 6])
    fresh = eq.refresh(plan, LOAD * 2)
    assert fresh.layer_ids == (3, 4, 5, 6)
    assert fresh.shares is not None
    assert (fresh.shares.rank_load(LOAD)[:, 5] == 0).all()


def test_a_forecast_is_what_has_an_expected_load() -> None:
    ahead = SimpleNamespace(expected=LOAD[:, ::-1])
    assert eq.refresh(PLAN, ahead).shares == eq.share(PLAN.placement, LOAD[:, ::-1])
    assert eq.share(PLAN.placement, ahead) == eq.share(PLAN.placement, LOAD[:, ::-1])


def test_shares_stay_even_where_the_errors_say_that_no_others_would_have_paid() -> None:
    placement = eq.Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    off = np.array([[[0.0, 2, -2]], [[0.0, -2, 2]], [[0.0, -3, 3]]])
    ahead = SimpleNamespace(expected=np.array([[4.0, 3.0, 3.0]]), errors=off, weight=np.ones((3, 1)))
    assert cautious_shares(placement, ahead) == eq.Shares.even(placement)
    steady = SimpleNamespace(expected=np.array([[4.0, 4.0, 2.0]]), errors=0 * off, weight=np.ones((3, 1)))
    assert cautious_shares(placement, steady) == eq.share(placement, steady.expected)


def test_errors_that_weigh_nothing_say_nothing() -> None:
    placement = eq.Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    ahead = SimpleNamespace(
        expected=np.array([[4.0, 3.0, 1.0]]), errors=np.full((3, 1, 3), 9.0), weight=np.zeros((3, 1))
    )
    assert cautious_shares(placement, ahead) == eq.share(placement, ahead.expected)


def test_windows_weigh_half_as_much_one_window_earlier() -> None:
    known = foresee([[[8.0, 0.0]], [[0.0, 8.0]], [[4.0, 4.0]]])
    assert known.expected.tolist() == [[4.0, 4.0]]
    assert known.errors.tolist() == [[[-8.0, 8.0]], [[0.0, 0.0]]]


def test_errors_of_another_shape_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="errors has shape"):
        eq.refresh(PLAN, SimpleNamespace(expected=LOAD, errors=np.zeros((3, 2))))
    with pytest.raises(InvalidInputError, match="pass the load of the same model"):
        eq.refresh(PLAN, LOAD[:2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "steps", "ranks", "slots"),
    [("gpt_oss_20b_steps.npz", 25, 16, 48), ("deepseek_v2_lite_windows.npz", 2, 8, 72)],
)
def test_refreshing_every_window_is_worth_points_on_recorded_traces(
    file: str, steps: int, ranks: int, slots: int
) -> None:
    """Re-planned every 16 windows, in both cases from the same windows; nothing moves in between."""
    data = np.load(real_load(file))
    counts = np.concatenate([data[name] for name in data.files]).astype(float)[100 * (file[0] == "g") :]
    whole = len(counts) // steps
    windows = counts[: whole * steps].reshape(whole, steps, *counts.shape[1:]).sum(axis=1)
    even, fresh, even_at, fresh_at = [], [], {}, {}
    for now in range(16, whole):
        if (now - 16) % 16 == 0:
            problem = eq.PlacementProblem(
                foresee(windows[now - 16 : now]).expected, eq.Cluster.from_slots(ranks, slots)
            )
            plan = eq.solve(problem)
        shares = eq.refresh(plan, windows[max(now - 32, 0) : now]).shares
        assert shares is not None
        mean = windows[now].sum(axis=1) / ranks
        even.append((mean / plan.placement.rank_load(windows[now]).max(axis=1)).mean())
        fresh.append((mean / shares.rank_load(windows[now]).max(axis=1)).mean())
        even_at.setdefault(now % 16, []).append(even[-1])
        fresh_at.setdefault(now % 16, []).append(fresh[-1])
    assert np.mean(fresh) >= np.mean(even) + 0.015
    for age in even_at:
        assert np.mean(fresh_at[age]) >= np.mean(even_at[age]) - 0.001, f"{age} windows after a plan"
