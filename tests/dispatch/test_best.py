from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog

import equipoise as eq
from equipoise.bounds import BOUNDS, lower_bounds
from equipoise.dispatch import certify_shares
from equipoise.dispatch.waterfill import numba, reference
from equipoise.errors import FileFormatError, InvalidInputError, InvalidPlacementError, UnknownNameError
from equipoise.load import generate_load

Row = tuple[NDArray[np.int32], NDArray[np.float64], int]

LOADS = {
    "skewed": lambda rng, n: rng.gamma(0.5, size=n) * 100,
    "ties": lambda rng, n: rng.integers(0, 3, n).astype(float),
    "one expert is everything": lambda rng, n: (np.arange(n) == 0) * 7.0,
    "nothing": lambda rng, n: np.zeros(n),
    "far apart": lambda rng, n: 10.0 ** rng.integers(-200, 200, n),
    "equal": lambda rng, n: np.full(n, 3.0),
}


def rows(number: int, kind: str, most_ranks: int = 8) -> Iterator[Row]:
    """Yield layers with empty slots, experts twice on a rank, and experts without a slot."""
    rng = np.random.default_rng(3)
    for _ in range(number):
        ranks, slots = int(rng.integers(1, most_ranks + 1)), int(rng.integers(1, 6))
        experts = int(rng.integers(1, ranks * slots + 1))
        held = np.concatenate([np.arange(experts), rng.integers(-1, experts, ranks * slots - experts)])
        if rng.random() < 0.2:
            held[held == 0] = -1
        rng.shuffle(held)
        yield held.astype(np.int32), LOADS[kind](rng, experts), ranks


def chain(ranks: int) -> Row:
    """Return a layer whose tokens can go from the first rank to the last over every other one only."""
    held = np.array([[e, e + 1] for e in range(ranks)], np.int32)
    load = np.full(ranks + 1, 1.0)
    load[0] = 1000.0
    return held.reshape(-1), load, ranks


def linear_program(held: NDArray[np.int32], load: NDArray[np.float64], ranks: int) -> float:
    """Return what the busiest rank carries with the best shares: minimise it, over the share of each slot."""
    slots = len(held)
    carried, given = np.zeros((ranks, slots + 1)), np.zeros((len(load), slots + 1))
    carried[:, slots] = -1
    for slot, e in enumerate(held):
        if e >= 0:
            carried[slot // (slots // ranks), slot] = load[e]
            given[e, slot] = 1
    placed = given.any(axis=1)
    cost = np.zeros(slots + 1)
    cost[slots] = 1
    found = linprog(cost, carried, np.zeros(ranks), given[placed], np.ones(placed.sum()), method="highs")
    return float(found.fun)


@pytest.mark.parametrize("kind", LOADS)
def test_no_linear_program_finds_shares_that_are_better(kind: str) -> None:
    for held, load, ranks in rows(60, kind):
        scaled = load / load.max() if load.any() else load
        placement = eq.Placement(held[None], ranks, len(load))
        shares = eq.share(placement, scaled[None])
        best, busiest = linear_program(held, scaled, ranks), shares.rank_load(scaled[None]).max()
        assert busiest <= best * (1 + 1e-5) + 1e-9
        assert busiest <= eq.Shares.even(placement).rank_load(scaled[None]).max()
        proof = certify_shares(shares, scaled[None])
        assert proof.lower_bound[0] <= best * (1 + 1e-7) + 1e-9
        assert busiest <= proof.lower_bound[0] * (1 + 1e-5)


@pytest.mark.parametrize("kind", LOADS)
def test_the_plain_version_pours_to_the_same_bits(kind: str) -> None:
    for held, load, ranks in [*rows(60, kind), chain(12)]:
        native, plain = (module.pour(held[None], load[None], ranks, 1e-6) for module in (numba, reference))
        assert native[0].tobytes() == plain[0].tobytes()
        assert native[1].tobytes() == plain[1].tobytes()


def test_a_plan_of_deepseek_v3_is_shared_as_well_as_a_linear_program_shares_it() -> None:
    load = generate_load("deepseek-v3", seed=1).load[:3]
    plan = eq.solve(eq.PlacementProblem(load, eq.Cluster(64, 5)))
    drifted = load * np.exp(np.random.default_rng(0).normal(0, 0.2, load.shape))
    busiest = eq.share(plan.placement, drifted).rank_load(drifted).max(axis=1)
    for layer in range(3):
        best = linear_program(plan.placement.physical_to_logical[layer], drifted[layer], 64)
        assert busiest[layer] == pytest.approx(best, rel=1e-5)


def test_a_chain_that_sweeps_would_take_long_over_is_exact() -> None:
    held, load, ranks = chain(300)
    shares = eq.share(eq.Placement(held[None], ranks, len(load)), load[None])
    assert certify_shares(shares, load[None]).gap.max() < 1e-5


def test_ranks_that_cannot_give_anything_away_are_named() -> None:
    placement = eq.Placement([[0, 1, 1, 0, 2, 3, 3, 2]], num_ranks=4, num_logical_experts=4)
    shares = eq.share(placement, [[6.0, 2.0, 1.0, 1.0]])
    proof = certify_shares(shares, [[6.0, 2.0, 1.0, 1.0]])
    assert proof.tight_ranks.tolist() == [[True, True, False, False]]
    assert proof.lower_bound.tolist() == proof.max_rank_load.tolist() == [4.0]
    assert proof.gap.tolist() == [0.0]


def test_shares_stay_even_where_no_others_are_better() -> None:
    placement = eq.Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    assert eq.share(placement, [[4, 1, 1]]) == eq.Shares.even(placement)
    assert eq.share(placement, [[0, 0, 0]]) == eq.Shares.even(placement)


def test_loads_times_a_constant_get_the_same_shares() -> None:
    load = generate_load("deepseek-v3", seed=2).load[:4]
    placement = eq.Placement.in_order(4, eq.Cluster(32, 9), 256)
    for factor in (3.0, 1e-9, 2.0**40):
        assert eq.share(placement, load * factor) == eq.share(placement, load)


def test_a_load_of_another_model_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="pass the load of the same model"):
        eq.share(eq.Placement([[0, 1]], 2, 2), [[1.0, 2.0, 3.0]])


def placements(problem: eq.PlacementProblem) -> Iterator[eq.Placement]:
    experts, slots = problem.num_logical_experts, problem.cluster.num_slots
    for held in product(range(experts), repeat=slots):
        if len(set(held)) == experts:
            yield eq.Placement([held], problem.cluster.num_ranks, experts)


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 1, 2), (2, 3, 4), (3, 2, 4), (2, 2, 4), (4, 1, 3)])
def test_bounds_for_any_shares_hold_for_every_placement_with_its_best_shares(shape: tuple[int, int, int]) -> None:
    ranks, slots, experts = shape
    for seed in range(2):
        load = np.random.default_rng(seed).gamma(0.4, size=(1, experts))
        problem = eq.PlacementProblem(load, eq.Cluster(ranks, slots))
        least = min(eq.share(placement, load).rank_load(load).max() for placement in placements(problem))
        bound, names = lower_bounds(problem, any_shares=True)
        assert bound[0] <= least * (1 + 1e-9)
        assert all(BOUNDS[name].any_shares for name in names)


def test_some_bounds_do_not_hold_for_uneven_shares() -> None:
    """Otherwise there would be nothing to tell apart: with even shares a large replica has company."""
    problem = eq.PlacementProblem([[10.0, 3.0]], eq.Cluster(2, 2))
    plan = eq.solve(problem, shares="best")
    assert {name for name, row in BOUNDS.items() if not row.any_shares} == {"threshold", "company", "hottest"}
    assert plan.certificate.gap[0] < 1e-6


def test_a_plan_asked_for_the_best_shares_has_them_and_is_measured_with_them() -> None:
    load = generate_load("deepseek-v3", seed=0).load[:4]
    problem = eq.PlacementProblem(load, eq.Cluster(144, 2))
    even, best = eq.solve(problem), eq.solve(problem, shares="best")
    assert best.placement == even.placement
    assert best.shares is not None
    assert even.shares is None
    assert best.shares == eq.share(best.placement, load)
    assert best.metrics.max_rank_load.tolist() == best.shares.rank_load(load).max(axis=1).tolist()
    assert (best.metrics.max_rank_load <= even.metrics.max_rank_load).all()
    assert all(BOUNDS[name].any_shares for name in best.certificate.bound)
    assert eq.Plan.from_json(best.to_json()).to_json() == best.to_json()


def test_a_re_plan_has_the_best_shares_too_and_ranks_may_be_lost() -> None:
    load = np.random.default_rng(1).gamma(0.5, size=(3, 8))
    problem = eq.PlacementProblem(load, eq.Cluster(4, 4))
    current = eq.solve(problem, shares="best")
    plan = eq.solve(problem, current=current, lost_ranks=[1], shares="best")
    assert plan.shares is not None
    assert (plan.shares.rank_load(load)[:, 1] == 0).all()
    assert eq.Plan.from_json(plan.to_json()).shares == plan.shares


def test_shares_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="it must be one of even, best"):
        eq.solve(eq.PlacementProblem([[1, 2]], eq.Cluster(2, 1)), shares="worst")  # type: ignore[arg-type]


def test_the_checker_counts_shares_again() -> None:
    problem = eq.PlacementProblem([[4.0, 2.0, 0.0]], eq.Cluster(2, 2))
    placement = eq.Placement([[0, 1, 0, 2]], 2, 3)
    shares = eq.Shares([[0.25, 1, 0.75, 1]], placement)
    from equipoise.checker import check_placement

    assert check_placement(problem, placement, shares=shares).tolist() == [[3.0, 3.0]]
    object.__setattr__(shares, "values", np.array([[0.25, 1, 0.25, 1]]))
    with pytest.raises(InvalidPlacementError, match=r"gives out 0\.5 of expert 0"):
        check_placement(problem, placement, shares=shares)


def test_a_file_with_shares_and_a_bound_for_even_ones_is_refused() -> None:
    problem = eq.PlacementProblem([[8, 2, 1, 1], [1, 2, 3, 4]], eq.Cluster(2, 3))
    text = eq.solve(problem, "plain-greedy", shares="best").to_json()
    assert '"mean"' in text
    with pytest.raises(FileFormatError, match="holds for even shares only"):
        eq.Plan.from_json(text.replace('"mean"', '"company"', 1))
