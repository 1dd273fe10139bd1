from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import equipoise as eq
import fuzz_layers
from equipoise.certificate import check_placement
from equipoise.descent import EFFORTS, tuning
from equipoise.errors import InvalidInputError, UnknownNameError
from equipoise.fixed_point import to_fixed_point
from equipoise.hierarchy import split_by_node
from equipoise.search import Search
from equipoise.testing import TINY_SHAPES, brute_force_optimum, random_load

ROUNDING = 1 + 1e-9  # plans are made on whole numbers, whose steps are 7e-11 of the hottest expert


def plan(problem: eq.PlacementProblem, **parameters: Any) -> eq.Plan:
    return eq.solve(problem, "joint-descent", **{"threads": 1, **parameters})


def busiest(problem: eq.PlacementProblem, **parameters: Any) -> NDArray[np.float64]:
    return plan(problem, **parameters).certificate.max_rank_load


@st.composite
def problems(draw: st.DrawFn, experts_fit: Callable[[int, int], int] = lambda ranks, slots: ranks * slots) -> Any:
    """Draw a shape in which duplicates can be avoided, and layers of ordinary and adversarial loads."""
    ranks, slots = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    experts = draw(st.integers(slots, experts_fit(ranks, slots)))  # slots <= ranks * experts: room for all apart
    seed = draw(st.integers(0, 2**32 - 1))
    load = random_load(8, experts, np.random.default_rng(seed))
    ties = np.stack([np.ones(experts), 2.0 ** (np.arange(experts) % 7), np.arange(experts) % 2])
    return eq.PlacementProblem(np.concatenate([load, ties]), eq.Cluster(ranks, slots))


@settings(max_examples=80)
@given(problems())
def test_every_expert_is_placed_every_rank_full_and_none_holds_an_expert_twice(problem: eq.PlacementProblem) -> None:
    for effort in EFFORTS:
        placement = plan(problem, effort=effort).placement
        check_placement(problem, placement, allow_duplicates=False)
        assert (placement.replica_count <= problem.cluster.num_ranks).all()


@settings(max_examples=60)
@given(problems())
def test_no_layer_is_worse_than_in_the_plain_greedy_plan(problem: eq.PlacementProblem) -> None:
    greedy = eq.solve(problem, "plain-greedy", threads=1).certificate.max_rank_load
    for effort in EFFORTS:
        for max_gap in (0.0, 0.001, 0.1):
            # What is proved to be within the gap is not compared with the plain plan any more.
            allowed = np.maximum(greedy, plan(problem).certificate.lower_bound * (1 + max_gap))
            assert (busiest(problem, effort=effort, max_gap=max_gap) <= allowed * ROUNDING).all()


@settings(max_examples=60)
@given(problems(), st.sampled_from([0.0, 0.001]))
def test_more_effort_is_never_worse_unless_it_stops_at_the_target(problem: eq.PlacementProblem, max_gap: float) -> None:
    fast, balanced, thorough = (plan(problem, effort=effort, max_gap=max_gap).certificate for effort in EFFORTS)
    for less, more in ((fast, balanced), (balanced, thorough)):
        # One may stop at the target where the other, still above it, went on to something better.
        allowed = np.maximum(less.max_rank_load, more.lower_bound * (1 + max_gap))
        assert (more.max_rank_load <= allowed * ROUNDING).all()


@settings(max_examples=30)
@given(problems(), st.randoms(use_true_random=False))
def test_threads_order_of_layers_and_scale_do_not_change_the_plan(problem: eq.PlacementProblem, random: Any) -> None:
    one = plan(problem).placement.physical_to_logical
    for threads in (2, 3, 4):
        assert np.array_equal(plan(problem, threads=threads).placement.physical_to_logical, one)
    order = random.sample(range(problem.num_layers), problem.num_layers)
    permuted = eq.PlacementProblem(problem.load[order], problem.cluster)
    assert np.array_equal(plan(permuted, threads=2).placement.physical_to_logical, one[order])
    for factor in (2.0**-30, 3.0, 1e9):
        scaled = plan(eq.PlacementProblem(problem.load * factor, problem.cluster))
        np.testing.assert_allclose(scaled.certificate.max_rank_load, busiest(problem) * factor, rtol=1e-9)
    halved = plan(eq.PlacementProblem(problem.load * 2.0**-30, problem.cluster))
    assert np.array_equal(halved.placement.physical_to_logical, one)


@settings(max_examples=40)
@given(problems(), st.sampled_from(["balanced", "thorough"]))
def test_a_plan_cut_short_by_the_clock_is_made_again_from_its_parameters(
    problem: eq.PlacementProblem, effort: str
) -> None:
    cut = plan(problem, effort=effort, deadline=0)
    check_placement(problem, cut.placement, allow_duplicates=False)
    assert cut.provenance.parameters["deadline"] is None
    again = plan(problem, **cut.provenance.parameters)
    assert again.placement == cut.placement
    assert again.to_json() == cut.to_json()


def test_a_plan_that_was_cut_in_the_middle_of_its_layers_is_made_again() -> None:
    problem = eq.PlacementProblem(np.random.default_rng(0).lognormal(0, 2.6, (60, 128)), eq.Cluster(32, 5))
    whole = plan(problem, effort="thorough", max_gap=0.0)
    cut = plan(problem, effort="thorough", max_gap=0.0, deadline=0.05, threads=2)
    ended = cut.provenance.parameters["stop_after"]
    assert len(ended) == 60
    assert cut.provenance.parameters["deadline"] is None
    assert cut.metrics.max_rank_load.sum() >= whole.metrics.max_rank_load.sum()
    for threads in (1, 2):
        assert plan(problem, **cut.provenance.parameters, threads=threads).to_json() == cut.to_json()
    assert eq.Plan.from_json(cut.to_json()).provenance.parameters["stop_after"] == list(ended)


@pytest.mark.parametrize("steps", [0, 1000, 100_000, 3_000_000])
def test_a_search_ends_after_the_steps_that_it_is_given_and_more_are_never_worse(steps: int) -> None:
    problem = eq.PlacementProblem(np.random.default_rng(0).lognormal(0, 2.6, (6, 128)), eq.Cluster(32, 5))
    cut, whole = plan(problem, stop_after=steps), plan(problem)
    assert (whole.metrics.max_rank_load <= cut.metrics.max_rank_load * ROUNDING).all()
    assert plan(problem, stop_after=[steps] * 6).placement == cut.placement
    assert plan(problem, stop_after=[-1] * 6).placement == whole.placement


@pytest.mark.parametrize("threads", [1, 2])
def test_no_layer_takes_more_steps_than_its_effort_allows(threads: int) -> None:
    for seed in range(40):
        load = fuzz_layers.problem_of(seed, 3)
        for effort in ("fast", "balanced"):
            search = Search(split_by_node(load, to_fixed_point(load.load), None), np.zeros(3, np.int64), 0.0, threads)
            search.run(effort, np.zeros(1, np.bool_))
            assert search.steps.max() <= 1.2 * tuning.MOST_STEPS[EFFORTS[effort]]


def test_a_deadline_that_does_not_strike_gives_the_plan_without_one() -> None:
    problem = eq.PlacementProblem(np.random.default_rng(1).lognormal(0, 1.5, (20, 40)), eq.Cluster(16, 3))
    assert plan(problem, deadline=3600).placement == plan(problem).placement


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_one_slot_a_rank_is_optimal(experts: int, seed: int) -> None:
    ranks = experts + seed % 20
    problem = eq.PlacementProblem(random_load(8, experts, np.random.default_rng(seed)), eq.Cluster(ranks, 1))
    found = plan(problem)
    np.testing.assert_allclose(found.certificate.max_rank_load, found.certificate.lower_bound, rtol=1e-12)


@pytest.mark.parametrize("experts", [1, 2, 5])
def test_one_rank_carries_everything(experts: int) -> None:
    problem = eq.PlacementProblem(random_load(8, experts, np.random.default_rng(0)), eq.Cluster(1, experts + 2))
    np.testing.assert_allclose(busiest(problem), problem.load.sum(axis=1), rtol=1e-12)


def test_so_many_experts_that_a_rank_load_takes_fifty_bits_are_planned() -> None:
    load = np.random.default_rng(0).uniform(0.5, 1.0, (1, 8192))
    plan = eq.solve(eq.PlacementProblem(load, eq.Cluster(num_ranks=2, slots_per_rank=4096)), threads=1)
    assert plan.certificate.max_gap < 1e-6


@pytest.mark.parametrize(("ranks", "slots"), [(4, 1), (4, 2), (8, 4), (3, 9)])
def test_no_spare_slot_keeps_one_replica_each(ranks: int, slots: int) -> None:
    load = random_load(16, ranks * slots, np.random.default_rng(0))
    assert (plan(eq.PlacementProblem(load, eq.Cluster(ranks, slots))).placement.replica_count == 1).all()


@pytest.mark.parametrize(("experts", "ranks", "slots"), [(24, 8, 4), (16, 8, 3), (7, 4, 2), (60, 16, 9)])
def test_equal_loads_that_fill_the_slots_evenly_are_level(experts: int, ranks: int, slots: int) -> None:
    load = np.ones((1, experts))
    found = plan(eq.PlacementProblem(load, eq.Cluster(ranks, slots)), effort="thorough", max_gap=0.0)
    assert found.certificate.max_gap <= 0.34  # one replica more than the mean, at worst
    if ranks * slots % experts == 0:
        assert found.certificate.max_gap <= 1e-12


@pytest.mark.parametrize(("experts", "ranks", "slots"), [(16, 8, 3), (32, 16, 2), (256, 32, 9), (256, 144, 2)])
def test_an_expert_with_nearly_all_the_load_goes_to_every_rank(experts: int, ranks: int, slots: int) -> None:
    load = np.full((1, experts), 1e-6)
    load[0, 5] = 1.0
    found = plan(eq.PlacementProblem(load, eq.Cluster(ranks, slots)))
    check_placement(eq.PlacementProblem(load, eq.Cluster(ranks, slots)), found.placement, allow_duplicates=False)
    spare = ranks * slots - experts + 1
    assert found.placement.replica_count[0, 5] == min(ranks, spare)


def test_two_slots_a_rank_with_few_experts_are_close_to_the_optimum() -> None:
    # Optimal pairs put an expert with itself here; parting them must not be the end of the search.
    problem = eq.PlacementProblem([[1.0, 1.0, 0.0], [365.0, 401.0, 0.0]], eq.Cluster(2, 2))
    np.testing.assert_allclose(busiest(problem), brute_force_optimum(problem), rtol=1e-12)


@pytest.mark.parametrize("shape", TINY_SHAPES)
def test_tiny_instances_are_seldom_far_from_the_optimum(shape: tuple[int, int, int]) -> None:
    experts, ranks, slots = shape
    load = random_load(64, experts, np.random.default_rng([*shape, 7]))
    problem = eq.PlacementProblem(load[load.sum(axis=1) > 0], eq.Cluster(ranks, slots))
    gap = busiest(problem) / brute_force_optimum(problem) - 1
    assert gap.min() > -1e-12
    assert np.median(gap) <= 0.001
    assert gap.max() <= 0.26


INTERPRETED = """
import sys
import numpy as np
import equipoise as eq
from equipoise.testing import random_load
for experts, ranks, slots in ((4, 3, 2), (5, 4, 3), (6, 2, 4), (3, 3, 1), (9, 3, 5), (1, 3, 4), (2, 5, 4)):
    load = random_load(8, experts, np.random.default_rng(3))
    for effort in ("fast", "balanced"):
        plan = eq.solve(eq.PlacementProblem(load, eq.Cluster(ranks, slots)), "joint-descent", effort=effort, threads=1)
        print(plan.placement.physical_to_logical.tolist(), plan.certificate.lower_bound.tolist())
"""


def test_the_kernels_make_the_same_plan_without_a_compiler() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-W", "ignore::RuntimeWarning", "-c", INTERPRETED],
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for disabled in ("0", "1")
    }
    assert len(printed) == 1


@pytest.mark.parametrize(
    ("parameters", "error", "says"),
    [
        ({"max_gap": -0.1}, InvalidInputError, "max_gap is -0.1"),
        ({"max_gap": float("nan")}, InvalidInputError, "max_gap is nan"),
        ({"effort": "extreme"}, UnknownNameError, "effort is 'extreme'; it must be one of fast, balanced, thorough"),
        ({"deadline": -1}, InvalidInputError, "deadline is -1"),
        ({"deadline": "soon"}, InvalidInputError, "deadline is 'soon'; it must be a finite number"),
        ({"max_gap": np.array([0.1, 0.2])}, InvalidInputError, r"max_gap is a ndarray of shape \(2,\)"),
        ({"max_gap": 10**400}, InvalidInputError, "max_gap is an int of 1329 bits"),
        ({"effort": ["fast"]}, UnknownNameError, r"effort is \['fast'\]"),
        ({"stop_after": 1.5}, InvalidInputError, "stop_after is 1.5"),
        ({"stop_after": True}, InvalidInputError, "stop_after is True"),
        ({"stop_after": [1, 2, 3]}, InvalidInputError, "stop_after has 3 numbers, and 1 are planned"),
        ({"stop_after": [-2]}, InvalidInputError, r"stop_after is \[-2\]"),
        ({"backend": "abacus"}, UnknownNameError, "backend is 'abacus'"),
    ],
)
def test_a_parameter_that_breaks_its_rule_is_named(parameters: dict[str, Any], error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        plan(eq.PlacementProblem([[1.0, 2.0]], eq.Cluster(2, 2)), **parameters)


def test_a_layer_is_planned_the_same_whether_or_not_another_stays_above_the_target() -> None:
    rng = np.random.default_rng(0)
    load = np.concatenate([rng.uniform(0.5, 1.5, (20, 24)), rng.lognormal(0, 3, (1, 24))])
    for cluster, groups in ((eq.Cluster(6, 5), None), (eq.Cluster(6, 5, num_nodes=2), 6)):
        alone, together = (plan(eq.PlacementProblem(part, cluster, groups)) for part in (load[:-1], load))
        assert np.array_equal(alone.placement.physical_to_logical, together.placement.physical_to_logical[:-1])
