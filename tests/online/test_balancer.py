"""The balancer: it counts, plans beside the engine, weighs and moves."""

from __future__ import annotations

import gc
import re

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import InvalidInputError
from equipoise.load import drift_load, generate_load
from equipoise.online import Balancer, ExponentialAverage, FixedInterval, Outlook, SlidingSum, Threshold, TokenGain
from equipoise.testing import recorded_load


def served(policy=None, steps=40, drift=0.5, **settings):
    """Run a balancer over steps whose load has drifted since its placement was planned."""
    load = generate_load("deepseek-v3", seed=0).load[:2]
    cluster = eq.Cluster(8, 36)
    placement = eq.solve(eq.PlacementProblem(load, cluster)).placement
    moved = drift_load(load, drift, seed=1).load / 1000
    balancer = Balancer(placement, cluster, policy=policy, check_every=10, **settings)
    changed = []
    for step in range(steps):
        balancer.record(moved)
        balancer.wait()
        if balancer.step():
            changed.append(step)
    return balancer, placement, moved, changed


def test_a_fixed_interval_migrates_and_keeps_the_limit():
    balancer, placement, moved, changed = served(FixedInterval(), max_transfers=8)
    assert changed
    counters = balancer.counters
    assert counters.migrations == len(changed) <= counters.checks
    assert balancer.decisions[0].outlook.planned_balancedness > balancer.decisions[0].outlook.balancedness
    assert eq.count_transfers(placement, balancer.placement).max() <= 8 * len(changed)
    assert counters.balancedness_realised == pytest.approx(counters.balancedness_planned, abs=1e-3)
    before, after = (p.rank_load(moved).max(axis=1).sum() for p in (placement, balancer.placement))
    assert after < before


def test_a_threshold_that_is_met_leaves_everything_where_it_is():
    balancer, placement, _, changed = served(Threshold(0.3))
    assert not changed
    assert balancer.placement is placement
    assert balancer.counters.skipped == balancer.counters.checks > 0
    assert "the threshold 0.3" in balancer.decisions[-1].reason


def test_gain_is_weighed_against_the_delay():
    slow = Outlook(0.7, 0.95, 1000.0, 750.0, 10, 1.0, 0.02)
    assert TokenGain(horizon=1000, expert_share=0.5).weigh(slow) == (
        True,
        "saves 2.5 s over 1000 steps and delays them by 1 s",
    )
    migrate, reason = TokenGain(horizon=100).weigh(slow)
    assert not migrate
    assert reason == "saves 0.25 s over 100 steps and delays them by 1 s; it must save 1.1 times the delay"
    assert TokenGain(horizon=100, overlap=1.0).weigh(slow)[0]
    assert not TokenGain().weigh(Outlook(1, 1, 0.0, 0.0, 0, 0.0, 0.1))[0]


def test_counts_of_slots_are_those_of_their_experts():
    placement = eq.Placement([[0, 1, 0, 2]], 2, 3)
    balancer = Balancer(placement, eq.Cluster(2, 2), check_every=1)
    balancer.record(np.array([[1, 2, 3, 4]]), physical=True)
    assert balancer._window.tokens_per_step().tolist() == [[4.0, 2.0, 4.0]]


def test_a_step_without_load_is_no_reason_to_plan():
    balancer = Balancer(eq.Placement([[0, 1]], 2, 2), eq.Cluster(2, 1), check_every=1)
    balancer.record(np.zeros((1, 2)))
    assert not balancer.step()
    assert balancer.decisions[-1].reason == "there is no load"


def test_an_average_forgets_and_a_sum_lets_go():
    for window in (SlidingSum(3), ExponentialAverage(0.5)):
        window.add(np.array([[1000.0]]))
        for _ in range(40):
            window.add(np.array([[1.0]]))
        assert window.tokens_per_step()[0, 0] == pytest.approx(1.0)


def after_one_plan(placement, cluster, lost=()):
    """Return a balancer that may move nothing, after it has planned once without the lost ranks."""
    balancer = Balancer(placement, cluster, check_every=1, max_transfers=0, policy=Threshold(0.1))
    balancer.record(np.ones((1, 3)))
    balancer.resume(None, None, lost)
    balancer.step()
    balancer.wait()
    balancer.step()
    return balancer


def test_a_plan_that_cannot_be_made_is_a_reason_to_wait():
    balancer = after_one_plan(eq.Placement([[0, 1, 0, 2]], 2, 3), eq.Cluster(2, 2), lost=[0])
    assert balancer.counters.failures == 1
    assert "on the 1 rank that is left cannot hold 3" in balancer.decisions[-1].reason


def test_experts_without_a_slot_get_one_whatever_the_limit_and_the_policy_say():
    balancer = after_one_plan(eq.Placement([[0, 1, 0, 2, 1, 0]], 3, 3), eq.Cluster(3, 2), lost=[1])
    assert balancer.placement.replica_count.min() > 0
    assert (balancer.placement.physical_to_logical[:, 2:4] == -1).all()
    assert balancer.decisions[-1].reason == "some experts have no slot"


def test_two_balancers_in_one_process_have_numbers_of_their_own():
    prometheus = pytest.importorskip("prometheus_client")
    one, _, _, _ = served(FixedInterval(), steps=12, name="one")
    other, _, _, _ = served(Threshold(0.1), steps=12, name="other")
    value = prometheus.REGISTRY.get_sample_value
    assert value("equipoise_migrations", {"balancer": "one"}) == one.counters.migrations == 1
    assert value("equipoise_migrations", {"balancer": "other"}) == other.counters.migrations == 0


def test_balancers_of_one_name_in_one_process_are_numbered():
    cluster, start = eq.Cluster(2, 1), eq.Placement([[0, 1]], 2, 2)
    one, other, third = (Balancer(start, cluster, name="served") for _ in range(3))
    assert [balancer.counters.name for balancer in (one, other, third)] == ["served", "served/2", "served/3"]
    del one, other
    gc.collect()
    assert Balancer(start, cluster, name="served").counters.name == "served"


def small(**settings):
    return Balancer(eq.Placement([[0, 1, 0, 2]], 2, 3), eq.Cluster(2, 2), check_every=1, **settings)


@pytest.mark.parametrize("count", [float("nan"), float("inf"), -1.0, 1e300])
@pytest.mark.parametrize("window", [SlidingSum, ExponentialAverage])
def test_a_bad_count_is_refused_by_name_and_leaves_no_trace(count, window):
    balancer = small(window=window(3), policy=FixedInterval())
    balancer.record([[5, 3, 2]])
    for physical, counts, where in ((False, [[1, 1, count]], "expert 2"), (True, [[1, count, 1, 1]], "slot 1")):
        with pytest.raises(InvalidInputError, match=f"at layer 0, {where}; counts must be finite"):
            balancer.record(counts, physical=physical)
    assert balancer._window.tokens_per_step().tolist() == [[5.0, 3.0, 2.0]]
    assert balancer.counters.steps == 1
    balancer.step()
    balancer.wait()
    balancer.step()
    assert (balancer.counters.checks, balancer.counters.failures) == (1, 0)


def test_a_window_that_returns_no_load_is_a_failed_check_and_not_an_error_beside_the_engine():
    class Broken(SlidingSum):
        def tokens_per_step(self):
            return np.array([[1.0, np.inf, 1.0]])

    balancer = small(window=Broken(1))
    balancer.record([[5, 3, 2]])
    assert not balancer.step()
    assert balancer.counters.failures == 1
    assert "load is inf at layer 0, expert 1" in balancer.decisions[-1].reason


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (np.ones((1, 4)), r"the window returns shape \(1, 4\); it must be \(1, 3\), layers and experts"),
        (np.ones(3), r"the window returns shape \(3,\)"),
        (5.0, r"the window returns shape \(\)"),
        ("many", "what the window returns holds <U4 values"),
        ([[1, 2], [3]], "what the window returns is ragged"),
    ],
)
def test_a_window_that_returns_another_shape_or_no_numbers_is_a_failed_check_that_says_so(returned, sentence):
    class Odd(SlidingSum):
        def tokens_per_step(self):
            return returned

    balancer = small(window=Odd(1))
    balancer.record([[5, 3, 2]])
    assert not balancer.step()
    assert balancer.counters.failures == 1
    assert re.match(sentence, balancer.decisions[-1].reason)


def test_before_the_first_step_there_is_no_load():
    balancer = small()
    balancer.resume(None, None, [])
    assert not balancer.step()
    assert balancer.decisions[-1].reason == "there is no load"


def test_a_plan_does_for_the_placement_that_it_holds():
    plan = eq.solve(eq.PlacementProblem([[5, 3, 2]], eq.Cluster(2, 2)))
    assert Balancer(plan, eq.Cluster(2, 2)).placement is plan.placement


def test_what_cannot_be_resumed_changes_nothing():
    balancer = small()
    before = balancer.placement
    for lost in ([2], 3, ["x"]):
        with pytest.raises(InvalidInputError, match="lost_ranks"):
            balancer.resume(None, None, lost)
    with pytest.raises(InvalidInputError, match="peers is a int"):
        balancer.resume(3, None, [1])
    assert balancer.placement is before


REFUSED = [
    (lambda: TokenGain(expert_share=2), "expert_share is 2"),
    (lambda: TokenGain(expert_share=0), "expert_share is 0; it must be a number above 0, up to 1"),
    (lambda: TokenGain(overlap=1.5), "overlap is 1.5"),
    (lambda: TokenGain(margin=float("inf")), "margin is inf"),
    (lambda: Threshold(0), "balancedness is 0"),
    (lambda: ExponentialAverage(True), "half_life is True"),
    (lambda: Balancer(None, eq.Cluster(2, 2)), "placement is a NoneType; pass a Placement, or a Plan"),
    (lambda: Balancer(np.array([[0, 1, 0, 2]]), eq.Cluster(2, 2)), "placement is a ndarray"),
    (lambda: Balancer(eq.Placement([[0, 1]], 2, 2), None), "cluster is a NoneType"),
    (lambda: small(policy="x"), "policy is 'x'"),
    (lambda: small(policy=TokenGain), "policy is <class"),
    (lambda: small(window="x"), "window is 'x'"),
    (lambda: small(links=3), "links is 3"),
    (lambda: small(peers=3), "peers is a int"),
    (lambda: small(max_transfers="a"), "max_transfers is 'a'; it must be a whole number of at least 0, or None"),
    (lambda: small(max_transfers=-1), "max_transfers is -1"),
    (lambda: small(rounds_per_step="x"), "rounds_per_step is 'x'"),
    (lambda: small(timeout="x"), "timeout is 'x'"),
    (lambda: small(bytes_per_expert=-1), "bytes_per_expert is -1"),
    (lambda: small(num_expert_groups=2), "3 logical experts do not form 2 equal groups"),
    (lambda: small(restore=3), "restore is 3"),
    (lambda: small(name=""), "name is ''"),
    (lambda: ExponentialAverage(0), "half_life is 0"),
    (lambda: SlidingSum(0), "steps is 0"),
    (lambda: Balancer(eq.Placement([[0, 1]], 2, 2), eq.Cluster(2, 2)), "pass the cluster that it is for"),
    (lambda: Balancer(eq.Placement([[0, 1]], 2, 2), eq.Cluster(2, 1), weights=[[]]), "pass peers="),
    (lambda: Balancer(eq.Placement([[0, 1]], 2, 2), eq.Cluster(2, 1)).record(np.ones((2, 2))), "counts has shape"),
]


@pytest.mark.parametrize(("build", "sentence"), REFUSED)
def test_what_cannot_be_is_refused_with_the_reason(build, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        build()


def test_the_busiest_rank_of_a_recorded_load_carries_less_with_a_balancer_than_without():
    windows = recorded_load().tokens_per_expert
    cluster = eq.Cluster(4, 5)
    start = eq.Placement(np.tile(np.arange(20) % 16, (3, 1)), 4, 16)
    balancer = Balancer(start, cluster, policy=FixedInterval(), check_every=1, max_transfers=6)
    busiest = {"without": 0.0, "with": 0.0}
    for counts in windows:
        busiest["without"] += start.rank_load(counts).max(axis=1).sum()
        busiest["with"] += balancer.placement.rank_load(counts).max(axis=1).sum()
        balancer.record(counts)
        balancer.step()
        balancer.wait()
        balancer.step()
    assert busiest["with"] < 0.95 * busiest["without"]


def test_new_shares_are_enough_where_moving_weights_does_not_pay():
    balancer, placement, moved, changed = served(Threshold(0.1), steps=60, drift=0.2, shares="best")
    assert balancer.placement is placement
    assert balancer.counters.refreshes == len(changed) == 1, "the load stays as it is after the first check"
    assert balancer.counters.migrations == 0
    assert balancer.shares == eq.share(placement, np.rint(moved * 1024))
    even, best = placement.rank_load(moved).max(axis=1), balancer.shares.rank_load(moved).max(axis=1)
    assert (best < even).all()
    assert balancer.decisions[-1].outlook.tokens == pytest.approx(best.sum(), rel=1e-4)


def test_a_plan_is_weighed_against_the_placement_in_force_with_new_shares():
    gain = TokenGain(horizon=100)
    even, _, _, _ = served(gain, drift=0.2)
    best, _, _, _ = served(gain, drift=0.2, shares="best")
    assert best.decisions[0].outlook.balancedness > even.decisions[0].outlook.balancedness
    assert best.decisions[0].outlook.planned_balancedness >= even.decisions[0].outlook.planned_balancedness


def test_a_migration_brings_its_own_shares():
    balancer, placement, _, changed = served(FixedInterval(), steps=11, drift=1.5, shares="best")
    assert changed
    assert balancer.placement is not placement
    assert balancer.shares.placement == balancer.placement


def test_without_being_asked_shares_stay_even():
    balancer, _, _, _ = served(FixedInterval())
    assert balancer.shares is None
    assert balancer.counters.refreshes == 0


def drifting(checks, layers=2, experts=16):
    rng = np.random.default_rng(3)
    return rng.poisson(40 * np.exp(np.cumsum(rng.normal(0, 0.2, (checks, layers, experts)), axis=0)))


def watched(windows, **settings):
    """Serve one step for each window, with a check after each; return the balancer."""
    cluster = eq.Cluster(4, 5)
    start = eq.Placement.in_order(windows.shape[1], cluster, windows.shape[2])
    balancer = Balancer(start, cluster, check_every=1, policy=FixedInterval(), max_transfers=4, **settings)
    for window in windows:
        balancer.record(window)
        balancer.step()  # begins to plan
        balancer.wait()
        balancer.step()  # weighs
    return balancer


def test_past_checks_are_windows_and_plans_are_for_the_next():
    windows = drifting(12)
    balancer = watched(windows)
    assert balancer._forecast.digest == eq.forecast(windows * 1024.0).digest
    outlook = balancer.decisions[-1].outlook
    assert 0 < outlook.planned_balancedness < 1
    assert outlook.planned_tokens < outlook.tokens or not balancer.decisions[-1].migrate


def test_with_a_window_of_its_callers_a_balancer_plans_for_that_alone():
    windows = drifting(12)
    balancer = watched(windows, window=SlidingSum(1))
    assert balancer._forecast is None
    mine = balancer.placement.rank_load(windows[-1])
    assert balancer.decisions[-1].outlook.planned_balancedness == pytest.approx(
        (mine.mean(axis=1) / mine.max(axis=1)).mean()
    )


def test_a_history_begins_anew_when_ranks_are_lost():
    balancer = watched(drifting(6))
    assert balancer._forecast.num_windows == 6
    balancer.resume(None, None, [1])
    assert balancer._forecast is None
