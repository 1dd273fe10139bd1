from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.bounds import BOUNDS, lower_bounds
from equipoise.certificate import certify
from equipoise.testing import TINY_SHAPES, brute_force_optimum, random_load, random_problems
from quick import NAMES, solve

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
    for name, bound in BOUNDS.items():
        layer = int((bound(problem) / np.maximum(optimum, 1e-300)).argmax())
        assert (bound(problem) <= optimum * ROUNDING).all(), f"bound {name} is too high on {problem.load[layer]}"
    for strategy in NAMES:
        achieved = solve(problem, strategy).certificate.max_rank_load
        assert (optimum <= achieved * ROUNDING).all(), f"{strategy} claims less than the optimum"


@pytest.mark.parametrize("shape", [shape for shape in TINY_SHAPES if shape[2] == 1])
def test_one_slot_a_rank_is_solved_exactly(shape: tuple[int, int, int]) -> None:
    problem = tiny(shape)
    np.testing.assert_allclose(solve(problem).certificate.max_rank_load, brute_force_optimum(problem), rtol=1e-12)


def test_a_second_replica_on_a_rank_never_helps_the_optimum_when_experts_fill_the_slots() -> None:
    problem = eq.PlacementProblem(random_load(LAYERS, 4, np.random.default_rng(1)), eq.Cluster(2, 3))
    apart = brute_force_optimum(problem, allow_duplicates=False)
    assert (brute_force_optimum(problem) <= apart * ROUNDING).all()


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
    assert (BOUNDS["hottest"](problem) <= brute_force_optimum(problem) * ROUNDING).all()


def test_no_bound_exceeds_what_any_placement_achieves_on_larger_problems() -> None:
    rng = np.random.default_rng(4)
    for problem in random_problems(60, seed=4, most_ranks=12, most_slots=8):
        free = eq.PlacementProblem(problem.load, problem.cluster)
        slots = problem.cluster.num_slots
        row = np.arange(slots) % problem.num_logical_experts
        dealt = np.stack([rng.permutation(row) for _ in range(problem.num_layers)])
        certificate = certify(free, eq.Placement(dealt, problem.cluster.num_ranks, problem.num_logical_experts))
        assert (certificate.gap >= 0).all()
