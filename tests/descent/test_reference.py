"""The compiled descent beside the one in plain Python: the same slots, loads, steps and stages, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import equipoise as eq
from equipoise.descent import EFFORTS, STAGES, numba, reference
from equipoise.descent.facts import FIRST_STAGE, MOST, REACHED, STEPS, new_facts
from equipoise.fixed_point import to_fixed_point
from equipoise.testing import TINY_SHAPES, brute_force_optimum, random_load
from fuzz_layers import KINDS

Planned = tuple[NDArray[np.int64], NDArray[np.int32]]

LOADS: dict[str, Any] = {
    **KINDS,
    "slightly skewed": lambda random, shape: random.lognormal(0, 0.5, shape),
    "half zeros": lambda random, shape: random.lognormal(0, 1, shape) * (np.arange(shape[1]) % 2),
    "nothing": lambda random, shape: np.zeros(shape),
}


def planned(
    implementation: Any, weight: NDArray[np.int64], cluster: eq.Cluster, effort: str, max_gap: float, **more: Any
) -> Planned:
    """Return the facts and the slots that one implementation comes to.

    ``more`` may limit the steps (``most``), leave stages out (``without``), give experts other ``names``, or stop at
    once (``stop``).
    """
    names = more.get("names", np.arange(weight.shape[1], dtype=np.int32))
    facts = new_facts(np.zeros(len(weight), np.int64), effort, more.get("without", ()))
    facts[:, STEPS] = 2
    facts[:, MOST] = np.minimum(facts[:, MOST], more.get("most", 10**9))
    held = np.empty((len(weight), cluster.num_ranks, cluster.num_slots // cluster.num_ranks), np.int32)
    names, stop = np.broadcast_to(names, weight.shape), np.array([more.get("stop", False)])
    implementation.plan_rows(weight, names, facts, held, max_gap, 1, stop)
    return facts, held


def assert_same(load: NDArray[np.float64], cluster: eq.Cluster, effort: str, max_gap: float, **more: Any) -> Planned:
    """Plan with both; return what both come to."""
    weight = to_fixed_point(load, cluster.num_ranks)
    plain = planned(reference, weight, cluster, effort, max_gap, **more)
    quick = planned(numba, weight, cluster, effort, max_gap, **more)
    assert quick[0].tolist() == plain[0].tolist(), "loads, steps or stages"
    assert quick[1].tolist() == plain[1].tolist(), "slots"
    return quick


@st.composite
def searches(draw: st.DrawFn) -> tuple[NDArray[np.float64], eq.Cluster]:
    """Draw a shape, with fewer experts than a rank has slots among them, and loads of one kind."""
    ranks, slots = draw(st.integers(1, 16)), draw(st.sampled_from([1, 2, 3, 4, 5, 7]))
    full = draw(st.booleans())
    experts = ranks * slots if full else draw(st.integers(1, ranks * slots))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.abs(LOADS[draw(st.sampled_from(sorted(LOADS)))](random, (2, experts))), eq.Cluster(ranks, slots)


@settings(max_examples=250)
@given(
    searches(),
    st.sampled_from(list(EFFORTS)),
    st.sampled_from([0.0, 0.001]),
    st.sampled_from([100, 5_000, 100_000, 500_000]),
    st.one_of(st.just(()), st.lists(st.sampled_from(STAGES), unique=True).map(tuple)),
)
def test_both_find_the_same_whatever_the_layer_the_effort_the_limit_and_what_is_left_out(
    search: tuple[NDArray[np.float64], eq.Cluster], effort: str, max_gap: float, most: int, without: tuple[str, ...]
) -> None:
    assert_same(*search, effort, max_gap, most=most, without=without)


# Searches that go far for little work: the seed and spread of the load, experts, ranks, slots, effort, and what acts.
FAR = [
    (14560, 0.5, 23, 7, 4, "balanced", "swaps pairs relaxed squeezed fitted"),
    (1682, 3.0, 12, 3, 6, "thorough", "swaps pairs relaxed fitted traded exact"),
    (33332, 1.3, 11, 3, 5, "balanced", "swaps pairs relaxed fitted traded exact"),
    (14817, 1.3, 40, 13, 4, "balanced", "swaps pairs relaxed squeezed fitted"),
    (22444, 0.5, 10, 4, 3, "balanced", "swaps chains redealt relaxed traded exact"),
    (5225, 3.0, 5, 5, 2, "balanced", "swaps relaxed traded paired"),
]


@pytest.mark.parametrize("case", FAR, ids=[f"{case[3]} ranks of {case[4]} slots" for case in FAR])
def test_both_go_the_same_way_through_all_stages(case: tuple[int, float, int, int, int, str, str]) -> None:
    seed, sigma, experts, ranks, slots, effort, stages = case
    load = np.random.default_rng(seed).lognormal(0, sigma, (1, experts))
    facts, _ = assert_same(load, eq.Cluster(ranks, slots), effort, 0.001)
    acted = {stage for stage, times in zip(STAGES, facts[0, FIRST_STAGE:], strict=True) if times}
    assert acted >= set(stages.split())


def test_every_stage_acts_in_some_of_those_searches() -> None:
    assert {stage for *_, stages in FAR for stage in stages.split()} == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_both_leave_out_the_same(stage: str) -> None:
    for seed, sigma, experts, ranks, slots, effort, stages in FAR:
        if stage in stages:
            load = np.random.default_rng(seed).lognormal(0, sigma, (1, experts))
            assert_same(load, eq.Cluster(ranks, slots), effort, 0.001, without=(stage,), most=300_000)


@pytest.mark.parametrize("slots", [2, 3, 4, 5])
@pytest.mark.parametrize("effort", EFFORTS)
def test_both_plan_small_layers_alike_where_experts_meet_themselves(slots: int, effort: str) -> None:
    """With few experts of many replicas, nearly every deal would give some rank an expert twice."""
    for ranks in (2, 3, 5):
        for experts in {slots - 1, slots, slots + 1, 3 * ranks * slots // 4}:
            random = np.random.default_rng([ranks, slots, experts])
            load = np.concatenate([random.poisson(3, (5, experts)) + 0.0, random.lognormal(0, 1, (5, experts))])
            assert_same(load, eq.Cluster(ranks, slots), effort, 0.0, most=20_000)


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_both_plan_many_ranks_alike(slots: int, sigma: float) -> None:
    random = np.random.default_rng([slots, int(10 * sigma)])
    for spare in (0, 1, 40):
        load = random.lognormal(0, sigma, (1, 130 * slots - spare))
        assert_same(load, eq.Cluster(130, slots), "balanced", 0.001, most=1_000_000)


@pytest.mark.parametrize("slots", [2, 3, 4, 17])
@pytest.mark.parametrize("limit", [3, 50, 1_000, 20_000, 200_000])
def test_both_end_where_the_steps_end(slots: int, limit: int) -> None:
    load = np.random.default_rng(limit).lognormal(0, 1.5, (3, 9 * slots - 4))
    facts, _ = assert_same(load, eq.Cluster(9, slots), "thorough", 0.0, most=limit)
    assert (facts[:, MOST] == limit).all()


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_both_stop_at_once_when_told_to_and_say_where(slots: int) -> None:
    load = np.random.default_rng(slots).lognormal(0, 1.5, (3, 7 * slots))
    facts, held = assert_same(load, eq.Cluster(7, slots), "thorough", 0.0, stop=True)
    weight = to_fixed_point(load, 7)
    for row in range(3):
        again = assert_same(load[row : row + 1], eq.Cluster(7, slots), "thorough", 0.0, most=int(facts[row, MOST]))
        assert np.array_equal(again[1][0], held[row])
    assert weight[0][held[0]].sum(axis=1).max() == facts[0, REACHED]


def test_both_call_experts_by_their_names_and_order_equal_ones_by_these() -> None:
    names = np.array([3, 4, 8, 9, 20, 21, 22, 40, 41, 77], np.int32)
    load = np.array([[5.0, 5.0, 1.0, 5.0, 2.0, 2.0, 2.0, 9.0, 0.0, 0.0]])
    for slots in (2, 3, 4):
        _, held = assert_same(load, eq.Cluster(5, slots), "balanced", 0.0, names=names)
        assert set(np.unique(held).tolist()) == set(names.tolist())


@pytest.mark.parametrize("shape", [shape for shape in TINY_SHAPES if shape[2] <= shape[0]][::3])
def test_the_plain_descent_is_optimal_where_slots_are_few(shape: tuple[int, int, int]) -> None:
    experts, ranks, slots = shape
    load = random_load(4, experts, np.random.default_rng([*shape, 5]))
    weight = to_fixed_point(load[load.sum(axis=1) > 0], ranks)
    problem = eq.PlacementProblem(weight.astype(np.float64), eq.Cluster(ranks, slots))
    facts, held = planned(reference, weight, problem.cluster, "thorough", 0.0)
    optimum = brute_force_optimum(problem, allow_duplicates=False)
    np.testing.assert_allclose(facts[:, REACHED], optimum, rtol=1e-9)
    for row, slots_of in enumerate(held):
        each = weight[row] // np.bincount(slots_of.ravel(), minlength=experts)
        assert each[slots_of].sum(axis=1).max() == facts[row, REACHED]


UNCOMPILED = """
import numba
import numpy as np
import test_reference as tests
from equipoise import Cluster

assert numba.config.DISABLE_JIT
for slots in (1, 2, 3, 4, 5):
    for seed, kind in enumerate(tests.LOADS.values()):
        random = np.random.default_rng([slots, seed])
        experts = 4 * slots - seed % 3
        load = np.abs(kind(random, (1, experts)))
        tests.assert_same(load, Cluster(4, slots), "balanced", 0.001, most=100_000)
"""


@pytest.mark.slow
def test_uncompiled_kernels_plan_what_the_reference_plans() -> None:
    """What numba compiles without a word, like a number that does not fit, Python shows."""
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", UNCOMPILED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
