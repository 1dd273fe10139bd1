from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

import equipoise as eq
from equipoise.bounds import BOUNDS, LIFTED_BY, bound, lower_bounds, raise_floor
from equipoise.certificate import certify
from equipoise.testing import TINY_SHAPES, brute_force_optimum, random_load, random_problems
from quick import NAMES, solve


def alone(name: str, problem: eq.PlacementProblem) -> NDArray[np.float64]:
    """Return what one bound proves beyond the quick ones; 0 outside its domain."""
    if not BOUNDS[name].holds(problem):
        return np.zeros(problem.num_layers)
    known, _ = lower_bounds(problem, quick=True)
    return BOUNDS[name].prove(problem, known, np.full(problem.num_layers, np.inf))


LAYERS = 96  # of each of the shapes: thousands of instances in all
ROUNDING = 1 + 1e-12


def tiny(shape: tuple[int, int, int]) -> eq.PlacementProblem:
    experts, ranks, slots = shape
    load = random_load(LAYERS, experts, np.random.default_rng([*shape]))
    return eq.PlacementProblem(load, eq.Cluster(ranks, slots))


def tiny_hierarchical(shape: tuple[int, int, int]) -> eq.PlacementProblem:
    experts, ranks, slots = shape
    load = random_load(LAYERS, 2 * experts, np.random.default_rng([*shape, 2]))
    return eq.PlacementProblem(load, eq.Cluster(2 * ranks, slots, num_nodes=2), num_expert_groups=2 * experts)


PROBLEMS = {
    **{"-".join(map(str, shape)): tiny(shape) for shape in TINY_SHAPES},
    **{f"nodes-{'-'.join(map(str, shape))}": tiny_hierarchical(shape) for shape in TINY_SHAPES if shape[0] < 4},
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_bound_is_at_most_the_optimum_which_is_at_most_what_is_achieved(problem: eq.PlacementProblem) -> None:
    optimum = brute_force_optimum(problem)
    for name in BOUNDS:
        bound = alone(name, problem)
        layer = int((bound / np.maximum(optimum, 1e-300)).argmax())
        assert (bound <= optimum * ROUNDING).all(), f"bound {name} is too high on {problem.load[layer]}"
    for strategy in NAMES:
        achieved = solve(problem, strategy).certificate.max_rank_load
        assert (optimum <= achieved * ROUNDING).all(), f"{strategy} claims less than the optimum"


@pytest.mark.parametrize("shape", [shape for shape in TINY_SHAPES if shape[2] == 1])
def test_one_slot_a_rank_is_solved_exactly(shape: tuple[int, int, int]) -> None:
    problem = tiny(shape)
    np.testing.assert_allclose(solve(problem).certificate.max_rank_load, brute_force_optimum(problem), rtol=1e-12)


def test_every_row_of_the_table_says_what_it_is() -> None:
    assert [row.name for row in BOUNDS.values()] == list(BOUNDS)
    for row in BOUNDS.values():
        assert row.held_up_by in LIFTED_BY
        assert all(len(words) > 10 for words in (row.argument, row.domain, row.proof))


def test_a_row_that_is_added_is_read_wherever_bounds_are(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = eq.PlacementProblem(np.array([[5.0, 3.0, 2.0, 1.0]]), eq.Cluster(2, 3))
    worse = eq.Placement([[0, 1, 2, 3, 2, 3]], 2, 4)
    weight = problem.load.astype(np.int64)
    assert certify(problem, worse).gap[0] > 0
    claims = dataclasses.replace(
        BOUNDS["mean"], name="claims", prove=lambda problem, known, achieved: achieved, guides=bound.always
    )  # whatever was achieved is the best: wrong, and so easily seen
    monkeypatch.setitem(BOUNDS, "claims", claims)
    certificate = certify(problem, worse)
    assert (certificate.gap[0], certificate.bound) == (0.0, ("claims",))
    plan = eq.solve(problem, current=worse, max_transfers=0)
    assert (plan.certificate.gap[0], plan.certificate.bound) == (0.0, ("claims",))
    assert plan.binding == {"the mean": 1}
    assert raise_floor(weight, 2, 3, np.array([6]), np.array([8])).tolist() == [8]


def test_rows_that_one_expert_dominates_get_a_floor_that_no_placement_undercuts() -> None:
    random = np.random.default_rng(6)
    weight = np.rint(1e6 * random.lognormal(0, 1.0, (64, 4))).astype(np.int64)
    weight[:, 0] = weight[:, 1:].sum(axis=1) * random.uniform(1, 3, 64)
    problem = eq.PlacementProblem(weight, eq.Cluster(3, 2))
    known = np.ceil(lower_bounds(problem, quick=True)[0]).astype(np.int64)
    raised = raise_floor(weight, 3, 2, known, np.full(64, 2**60))
    assert (raised >= known).all()
    assert (raised > known).any()
    assert (raised <= np.ceil(brute_force_optimum(problem) * ROUNDING)).all()


def test_one_more_slot_a_rank_never_raises_the_bound() -> None:
    load = random_load(64, 6, np.random.default_rng(2))
    fewer, more = (lower_bounds(eq.PlacementProblem(load, eq.Cluster(3, slots)))[0] for slots in (3, 4))
    assert (more <= fewer * ROUNDING).all()


def test_the_bound_follows_the_scale_of_the_load() -> None:
    load = random_load(64, 6, np.random.default_rng(3))
    cluster = eq.Cluster(3, 3)
    plain = lower_bounds(eq.PlacementProblem(load, cluster))[0]
    for factor in (1e-9, 3.0, 1e12):
        scaled = lower_bounds(eq.PlacementProblem(load * factor, cluster))[0]
        np.testing.assert_allclose(scaled, plain * factor, rtol=1e-12)


def test_a_layer_without_tokens_has_a_bound_of_zero_and_no_gap() -> None:
    certificate = solve(eq.PlacementProblem(np.zeros((1, 4)), eq.Cluster(2, 3))).certificate
    assert certificate.lower_bound.tolist() == [0.0]
    assert certificate.gap.tolist() == [0.0]


def test_what_the_counts_of_a_hot_expert_leave_is_proved_beyond_the_mean() -> None:
    # 128 experts in 144 slots on 16 ranks: the hottest expert fits on 16 ranks but fills none, on 15 it is too heavy.
    rng = np.random.default_rng(0)
    load = np.sort(rng.lognormal(0, 2.0, (32, 128)), axis=1)[:, ::-1].copy()
    load[:, 0] = load[:, 1:].sum(axis=1) * np.linspace(2, 24, 32)
    certificate = solve(eq.PlacementProblem(load, eq.Cluster(16, 9))).certificate
    mean = load.sum(axis=1) / 16
    proved = np.array([name == "hottest" for name in certificate.bound])
    assert proved.sum() >= 4
    assert (certificate.lower_bound[proved] > mean[proved]).all()
    assert (certificate.gap[proved] >= 0).all()


@pytest.mark.parametrize("shape", [(4, 3, 2), (5, 4, 2), (4, 4, 2), (5, 3, 3), (4, 2, 4), (6, 3, 3)])
def test_the_bound_from_the_hottest_expert_is_at_most_the_optimum_under_heavy_skew(
    shape: tuple[int, int, int],
) -> None:
    experts, ranks, slots = shape
    rng = np.random.default_rng([*shape, 9])
    skewed = rng.lognormal(0, rng.uniform(0.5, 3.0, (200, 1)), (200, experts))
    problem = eq.PlacementProblem(skewed, eq.Cluster(ranks, slots))
    assert (alone("hottest", problem) <= brute_force_optimum(problem) * ROUNDING).all()


def test_no_bound_exceeds_what_any_placement_achieves_on_larger_problems() -> None:
    rng = np.random.default_rng(4)
    for problem in random_problems(60, seed=4, most_ranks=12, most_slots=8):
        free = eq.PlacementProblem(problem.load, problem.cluster)
        slots = problem.cluster.num_slots
        row = np.arange(slots) % problem.num_logical_experts
        dealt = np.stack([rng.permutation(row) for _ in range(problem.num_layers)])
        certificate = certify(free, eq.Placement(dealt, problem.cluster.num_ranks, problem.num_logical_experts))
        assert (certificate.gap >= 0).all()
