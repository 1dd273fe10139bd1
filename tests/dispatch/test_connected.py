from __future__ import annotations

import json

import numpy as np
import pytest

import equipoise as eq
from equipoise.dispatch import count_components, fewest_components
from equipoise.dispatch.connect import numba, reference
from equipoise.dispatch.connected import DRIFT, OWN_SEED, _factors
from equipoise.errors import FileFormatError, InvalidInputError
from equipoise.load import generate_load, read_load
from real_loads import real_load

V3 = generate_load("deepseek-v3", seed=3).load[:6]


def test_the_plain_version_makes_the_same_swaps() -> None:
    rng = np.random.default_rng(0)
    total = 0
    for trial in range(30):
        ranks, width = int(rng.integers(2, 6)), int(rng.integers(1, 4))
        experts = int(rng.integers(1, ranks * width + 1))
        held = np.concatenate([np.arange(experts), rng.integers(-1, experts, ranks * width - experts)])
        rng.shuffle(held)
        load = (rng.gamma(0.5, size=experts), rng.integers(0, 4, experts).astype(float), np.zeros(experts))[trial % 3]
        placement = eq.Placement(held[None], ranks, experts)
        limit = placement.rank_load(load[None]).max(axis=1) * 1.1
        most = np.array([(1 << 62, 1)[trial % 4 == 3]])
        per_node = ranks // 2 if ranks % 2 == 0 and trial % 2 else ranks
        asked = (held[None].astype(np.int32), load[None], _factors(experts, 0.2, 0, np.arange(3)), limit, most)
        native, plain = (module.connect(*asked, ranks, per_node) for module in (numba, reference))
        assert native[0].tolist() == plain[0].tolist()
        assert native[1].tolist() == plain[1].tolist()
        total += int(native[1].sum())
    assert total > 5, "nothing was compared"


def test_components_are_counted_by_shared_experts() -> None:
    placement = eq.Placement([[0, 1, 0, 2, 3, -1], [0, 1, 2, 3, -1, -1]], num_ranks=3, num_logical_experts=4)
    assert count_components(placement).tolist() == [2, 2]
    assert fewest_components(placement).tolist() == [2, 2]


def test_ranks_are_connected_within_the_gap_and_the_same_replicas() -> None:
    problem = eq.PlacementProblem(V3, eq.Cluster(32, 9))
    plain, connected = eq.solve(problem), eq.solve(problem, connected=True)
    assert (connected.metrics.max_rank_load <= plain.metrics.max_rank_load * 1.001 * (1 + 1e-9)).all()
    assert connected.placement.replica_count.tolist() == plain.placement.replica_count.tolist()
    assert (connected.metrics.num_duplicates <= plain.metrics.num_duplicates).all()
    assert (count_components(connected.placement) <= count_components(plain.placement)).all()
    assert count_components(connected.placement).mean() < 2.5 < count_components(plain.placement).mean()
    better = eq.flexibility(connected.placement, V3, seed=1) - eq.flexibility(plain.placement, V3, seed=1)
    assert better.mean() > 0.02


def test_a_connected_plan_is_the_same_whatever_is_planned_beside_a_layer_and_on_how_many_threads() -> None:
    problem = eq.PlacementProblem(V3, eq.Cluster(32, 9))
    table = eq.solve(problem, connected=True, threads=1).placement.physical_to_logical
    turned = eq.PlacementProblem(V3[::-1] * 3.0, eq.Cluster(32, 9))
    assert eq.solve(turned, connected=True, threads=2).placement.physical_to_logical[::-1].tolist() == table.tolist()


def test_groups_stay_on_their_nodes() -> None:
    problem = eq.PlacementProblem(V3, eq.Cluster(32, 9, num_nodes=4), num_expert_groups=8)
    plan = eq.solve(problem, connected=True)  # the checker refuses torn groups
    assert (count_components(plan.placement) >= 4).all()
    assert plan.provenance.stages["swaps that connect"] > 0


@pytest.mark.parametrize("limit", [{"max_transfers": 20}, {"max_transfers_total": 100}, {"max_transfers": 0}])
def test_a_re_plan_connects_by_what_is_left_of_its_limit(limit: dict[str, int]) -> None:
    problem = eq.PlacementProblem(V3, eq.Cluster(32, 9))
    current = eq.solve(problem).placement
    drifted = eq.PlacementProblem(V3 * _factors(256, 0.02, 5, np.arange(1)), eq.Cluster(32, 9))
    plain = eq.solve(drifted, current=current, **limit)
    plan = eq.solve(drifted, current=current, connected=True, **limit)
    transfers = eq.count_transfers(current, plan.placement)
    assert (transfers <= limit.get("max_transfers", 1000)).all()
    assert transfers.sum() <= limit.get("max_transfers_total", 10**6)
    assert (plan.metrics.max_rank_load <= plain.metrics.max_rank_load * (1 + 1e-9)).all()
    assert (count_components(plan.placement) <= count_components(plain.placement)).all()


def test_a_re_plan_without_a_limit_is_connected_too() -> None:
    problem = eq.PlacementProblem(V3, eq.Cluster(32, 9))
    plan = eq.solve(problem, current=eq.solve(problem), connected=True, lost_ranks=[3])
    fewest = fewest_components(plan.placement)
    assert fewest.tolist() == [8] * 6  # 279 slots on 31 ranks have 23 redundant experts
    assert count_components(plan.placement).mean() < 9


def test_the_summary_says_how_many_components_and_what_drift_leaves() -> None:
    plan = eq.solve(eq.PlacementProblem(V3, eq.Cluster(32, 9)), connected=True, shares="best")
    told = plan.provenance.parameters["connected"]
    assert f"balancedness {told['best']:.4f} with the best shares, {told['even']:.4f} with even ones" in plan.summary()
    assert "components of ranks that share experts, worst layer" in plan.summary()
    assert eq.Plan.from_json(plan.to_json()).summary() == plan.summary()
    assert told["best"] == pytest.approx(eq.flexibility(plan.placement, V3).mean(), abs=1e-4)


def test_the_summary_says_where_spare_slots_cannot_connect_the_ranks() -> None:
    plan = eq.solve(eq.PlacementProblem(V3[:2], eq.Cluster(144, 2)), connected=True)
    assert "32 redundant experts cannot join 144 ranks: at least 112" in plan.summary()


def test_a_file_whose_flexibility_is_no_number_is_refused() -> None:
    plan = eq.solve(eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(2, 3)), connected=True)
    document = json.loads(plan.to_json())
    document["provenance"]["parameters"]["connected"]["best"] = "good"
    with pytest.raises(FileFormatError, match="connected, best"):
        eq.Plan.from_json(json.dumps(document))


def test_flexibility_without_drift_is_the_balancedness_of_the_shares() -> None:
    placement = eq.solve(eq.PlacementProblem(V3, eq.Cluster(32, 9))).placement
    even = V3.sum(axis=1) / 32 / placement.rank_load(V3).max(axis=1)
    assert eq.flexibility(placement, V3, 0, samples=1, shares="even") == pytest.approx(even)
    assert (eq.flexibility(placement, V3, 0, samples=1) >= even).all()


def test_drift_is_lognormal_with_the_spread_that_is_asked_for() -> None:
    step = np.log(_factors(256, 0.4, 7, np.arange(200)))
    assert step.mean() == pytest.approx(0, abs=0.01)
    assert step.std() == pytest.approx(0.4, rel=0.01)
    assert not np.array_equal(_factors(8, DRIFT, 0, np.arange(1)), _factors(8, DRIFT, OWN_SEED, np.arange(1)))


def test_too_much_drift_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="drift is 5"):
        eq.flexibility(eq.Placement([[0, 1]], 2, 2), [[1, 2]], 5)


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "slots", "least"), [(32, 288, 0.96), (64, 320, 0.92)])
def test_a_recorded_load_may_drift_by_a_fifth(ranks: int, slots: int, least: float) -> None:
    load = read_load(real_load("deepseek_v3_decode_in1000out1000.json")).load
    load = load[load.sum(axis=1) > 0]
    problem = eq.PlacementProblem(load, eq.Cluster.from_slots(ranks, slots))
    plain, plan = eq.solve(problem), eq.solve(problem, connected=True)
    assert (plan.metrics.max_rank_load <= plain.metrics.max_rank_load * 1.001 * (1 + 1e-9)).all()
    found = []
    for seed in range(4):
        drifted = load * np.exp(np.random.default_rng(seed).normal(0, 0.2, load.shape))
        busiest = eq.share(plan.placement, drifted).rank_load(drifted).max(axis=1)
        found.append((drifted.sum(axis=1) / ranks / busiest).mean())
    assert np.mean(found) >= least


def test_connecting_is_not_worse_where_spare_slots_cannot_connect() -> None:
    """Held to drifts that neither the swaps nor the check of them have seen."""
    problem = eq.PlacementProblem(V3, eq.Cluster(144, 2))
    plain, plan = eq.solve(problem), eq.solve(problem, connected=True)
    after = [eq.flexibility(each.placement, V3, seed=3, samples=16).mean() for each in (plain, plan)]
    assert after[1] >= after[0] - 0.002
