from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import equipoise as eq
from equipoise.errors import InvalidInputError, MissingDependencyError, UnknownNameError
from equipoise.load import generate_load, read_load
from equipoise.testing import assert_valid_placement, random_load, random_problems
from published import busiest_rank
from quick import NAMES, QUICK, solve
from real_loads import real_load

CLUSTERS = {"global": (eq.Cluster(8, 9), None), "hierarchical": (eq.Cluster(8, 9, num_nodes=4), 8)}
LOAD = np.concatenate([generate_load("deepseek-v3").load[:12, :64], random_load(12, 64, np.random.default_rng(0))])


def slots(load: np.ndarray, strategy: str, cluster: str = "global", **arguments: object) -> np.ndarray:
    plan = solve(eq.PlacementProblem(load, *CLUSTERS[cluster]), strategy, **arguments)
    return plan.placement.physical_to_logical


@pytest.fixture(params=NAMES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=CLUSTERS)
def cluster(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_number_of_threads_does_not_change_the_plan(strategy: str, cluster: str) -> None:
    one = slots(LOAD, strategy, cluster, threads=1)
    for threads in (2, 3, 4):
        assert np.array_equal(slots(LOAD, strategy, cluster, threads=threads), one)


def test_few_layers_on_many_threads_get_the_same_plan(strategy: str) -> None:
    # Fewer layers than threads: the restarts of a layer are shared out too.
    one = slots(LOAD[:1], strategy, threads=1)
    assert np.array_equal(slots(LOAD[:1], strategy, threads=4), one)
    assert np.array_equal(slots(LOAD, strategy)[:1], one)


def test_permuted_layers_get_the_permuted_plan(strategy: str, cluster: str) -> None:
    order = np.random.default_rng(1).permutation(len(LOAD))
    assert np.array_equal(slots(LOAD[order], strategy, cluster), slots(LOAD, strategy, cluster)[order])


def test_a_subset_of_the_layers_gets_the_same_bits(strategy: str, cluster: str) -> None:
    chosen = [3, 4, 17]
    assert np.array_equal(slots(LOAD[chosen], strategy, cluster), slots(LOAD, strategy, cluster)[chosen])


@pytest.mark.parametrize("factor", [3, 0.1, 1e9, 1e-7])
def test_a_load_times_a_constant_gets_the_same_plan(strategy: str, cluster: str, factor: float) -> None:
    assert np.array_equal(slots(LOAD * factor, strategy, cluster), slots(LOAD, strategy, cluster))


@pytest.mark.parametrize("factor", [3, 0.1, 1e9, 1e-7])
def test_rounding_in_the_last_bit_does_not_draw_other_random_numbers(factor: float) -> None:
    # Of a thousand layers of real numbers, some round to other integers when they are scaled.
    load = np.random.default_rng(2).gamma(0.5, size=(1000, 32))
    cluster = eq.Cluster(4, 9)
    plain, scaled = (
        solve(eq.PlacementProblem(each, cluster), "pruned-restarts", restarts=8) for each in (load, load * factor)
    )
    assert plain.placement == scaled.placement


def test_single_precision_and_integers_get_the_plan_of_the_same_numbers(strategy: str) -> None:
    load = np.round(LOAD * 1000 / LOAD.max())
    plain = slots(load, strategy)
    for dtype in (np.float32, np.int64, np.uint16):
        assert np.array_equal(slots(load.astype(dtype), strategy), plain)


PROCESS = """
import sys, hashlib
import numpy as np
import equipoise as eq
load = np.random.default_rng(0).gamma(0.4, size=(6, 48))
for name in sys.argv[1].split(","):
    for cluster, groups in ((eq.Cluster(6, 9), None), (eq.Cluster(6, 9, 2), 4)):
        plan = eq.solve(eq.PlacementProblem(load, cluster, groups), name, threads=int(sys.argv[2]))
        print(name, hashlib.sha256(plan.placement.physical_to_logical.tobytes()).hexdigest())
"""


def test_separate_processes_make_the_same_plan() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", PROCESS, ",".join(NAMES), str(threads)],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads, hash_seed in ((1, 0), (4, 12345))
    }
    assert len(printed) == 1
    assert len(printed.pop().splitlines()) == 2 * len(NAMES)


def test_the_seed_decides_what_is_random() -> None:
    assert np.array_equal(slots(LOAD, "pruned-restarts", seed=3), slots(LOAD, "pruned-restarts", seed=3))
    assert not np.array_equal(slots(LOAD, "pruned-restarts", seed=3), slots(LOAD, "pruned-restarts", seed=4))


def test_the_reference_makes_the_same_plan_as_the_native_kernel() -> None:
    few = {"restarts": 12, "refined": 4}
    for problem in random_problems(12, seed=5, most_ranks=4, most_slots=4, num_layers=3):
        native, reference = (
            eq.solve(problem, "pruned-restarts", backend=name, threads=1, **few) for name in ("numba", "reference")
        )
        assert native.placement == reference.placement
        assert (native.provenance.implementation, reference.provenance.implementation) == ("numba", "reference")


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
def test_pruned_restarts_never_leave_more_imbalance_than_the_plain_greedy(ranks: int) -> None:
    problem = eq.PlacementProblem(LOAD, eq.Cluster(ranks, 64 // ranks))
    greedy, best = (
        np.ptp(solve(problem, name).placement.rank_load(LOAD), axis=1) for name in ("plain-greedy", "pruned-restarts")
    )
    assert (best <= greedy + 1e-9 * LOAD.max(axis=1)).all()


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_every_plan_is_valid_certified_and_can_be_written_down(seed: int) -> None:
    for problem in random_problems(1, seed=seed):
        for name in NAMES:
            plan = solve(problem, name)
            assert_valid_placement(problem, plan.placement)
            assert (plan.certificate.gap >= 0).all()
            assert plan.provenance.problem_digest == problem.digest
            assert eq.Plan.from_json(plan.to_json()).placement == plan.placement


def test_a_plan_says_how_it_was_found() -> None:
    plan = eq.solve(eq.PlacementProblem(LOAD, eq.Cluster(8, 9)), "pruned-restarts", seed=7, restarts=32, refined=4)
    how = plan.provenance
    assert (how.strategy, how.seed, how.version) == ("pruned-restarts", 7, eq.__version__)
    assert how.parameters == {"restarts": 32, "refined": 4, "noise": 0.2, "swaps": 50, "extremes": 4}
    assert how.stages["restarts"] == 32 * len(LOAD)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"strategy": "magic"}, UnknownNameError, "strategy is 'magic'; it must be one of"),
        ({"strategy": "pruned-restarts", "starts": 3}, UnknownNameError, "has no parameter 'starts'; it has restarts"),
        ({"strategy": "plain-greedy", "restarts": 3}, UnknownNameError, "plain-greedy has no parameter 'restarts'"),
        ({"strategy": "pruned-restarts", "backend": "abacus"}, UnknownNameError, "backend is 'abacus'"),
        ({"seed": -1}, InvalidInputError, "seed is -1"),
        ({"seed": "zero"}, InvalidInputError, "seed is 'zero'"),
        ({"threads": 0}, InvalidInputError, "threads is 0"),
    ],
)
def test_an_argument_that_breaks_its_rule_is_named(arguments: dict[str, object], error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        eq.solve(eq.PlacementProblem(LOAD, eq.Cluster(8, 9)), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [["magic"], {}, None])
def test_a_strategy_that_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(UnknownNameError, match=r"strategy is .*; it must be one of"):
        eq.solve(eq.PlacementProblem(LOAD, eq.Cluster(8, 9)), strategy=name)  # type: ignore[arg-type]


@pytest.mark.parametrize("load", [5e-324, 1e-310, 1e300])
def test_the_smallest_and_the_largest_floats_are_planned(load: float) -> None:
    plan = eq.solve(eq.PlacementProblem(np.full((1, 8), load), eq.Cluster(3, 4)))
    assert plan.metrics.mean_balancedness > 0.6


@pytest.mark.parametrize("strategy", NAMES)
@pytest.mark.parametrize(("experts", "ranks", "slots", "hot"), [(256, 144, 3, 33), (64, 16, 5, 12), (30, 11, 4, 7)])
def test_a_hot_expert_among_equal_ones_is_planned_no_worse_than_by_the_published_greedy(
    strategy: str, experts: int, ranks: int, slots: int, hot: int
) -> None:
    """The published method compares floats, in which a replica of the hot expert ties with the others, as in truth."""
    load = np.ones((1, experts))
    load[0, -1] = hot
    counts = np.ones(experts, np.int64)
    for _ in range(ranks * slots - experts):
        counts[np.argmax(load[0] / counts)] += 1
    items = np.sort(np.repeat(load[0] / counts, counts))[::-1]
    rank_load, room = np.zeros(ranks), np.full(ranks, slots)
    for item in items:
        lightest = np.argmin(np.where(room > 0, rank_load, np.inf))
        rank_load[lightest] += item
        room[lightest] -= 1
    for scale in (1.0, 3.7):
        found = solve(eq.PlacementProblem(load * scale, eq.Cluster(ranks, slots)), strategy)
        assert found.certificate.max_rank_load[0] <= rank_load.max() * scale * (1 + 1e-9)


def test_a_hierarchical_plan_is_within_max_gap_of_the_published_one_whatever_the_ties() -> None:
    random = np.random.default_rng(0)
    shapes = [(9, 2, 3, 9, 9), (4, 3, 2, 4, 8), (8, 2, 4, 8, 16), (6, 3, 3, 6, 12), (4, 4, 2, 2, 10)]
    for ranks, slots_per_rank, nodes, groups, experts in shapes:
        load = np.minimum(random.geometric(0.4, (16, experts)) - 1, 9)
        if experts == 9:
            load[0] = [1, 1, 2, 3, 1, 1, 1, 3, 0]  # where the next slot goes is a tie, and one choice takes less
        plan = eq.solve(eq.PlacementProblem(load, eq.Cluster(ranks, slots_per_rank, nodes), groups))
        for layer, reached in zip(load.tolist(), plan.metrics.max_rank_load, strict=True):
            assert reached <= float(busiest_rank(layer, ranks, slots_per_rank, nodes, groups)) * 1.001


@pytest.mark.parametrize("seed", [-1, "zero", 2**64])
def test_the_seed_is_checked_even_where_nothing_random_happens(seed: object) -> None:
    with pytest.raises(InvalidInputError, match="seed is"):
        eq.solve(eq.PlacementProblem([[2.0, 1.0]], eq.Cluster(2, 1)), seed=seed)  # type: ignore[arg-type]


def test_a_numpy_seed_can_be_saved() -> None:
    plan = solve(eq.PlacementProblem([[2.0, 1.0]], eq.Cluster(2, 1)), seed=np.uint8(3))
    assert json.loads(plan.to_json())["provenance"]["seed"] == 3


def test_something_that_is_no_problem_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="problem is a list; pass a PlacementProblem"):
        eq.solve([[1.0, 2.0]])  # type: ignore[arg-type]


def test_a_backend_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="needs numba, not installed here; pip install numba"):
        eq.solve(eq.PlacementProblem(LOAD, eq.Cluster(8, 9)), "pruned-restarts", backend="numba")


@pytest.mark.parametrize("name", ["deepseek_v3_prefill_in1024.json", "deepseek_v3_decode_in1000out1000.json"])
def test_recorded_loads_are_planned_close_to_the_bound_and_empty_layers_kept(name: str) -> None:
    load = read_load(real_load(name))
    problem = eq.PlacementProblem(load, eq.Cluster(32, 9))
    for strategy in NAMES:
        plan = eq.solve(problem, strategy, **({} if strategy == "plain-greedy" else QUICK.get(strategy, {})))
        assert_valid_placement(problem, plan.placement)
        assert plan.certificate.max_gap < (0.03 if strategy == "plain-greedy" else 0.01)
        assert plan.certificate.lower_bound[: len(load.empty_layers)].tolist() == [0.0] * 3
