"""The drop-in contract, held to an oracle that is written from the published signatures alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise.eplb import balanced_packing, plan_maps, rebalance_experts, replicate_experts
from equipoise.errors import InvalidInputError
from equipoise.testing import random_load

QUICK = {"strategy": "pruned-restarts", "restarts": 16, "threads": 1}
SHAPES = {
    "global": (3, 16, 24, 1, 1, 4),
    "hierarchical": (3, 16, 24, 4, 2, 4),
    "hierarchical with one group a node": (2, 16, 16, 4, 4, 8),
    "groups that the nodes do not divide": (3, 16, 24, 4, 3, 4),
    "no spare slot": (2, 16, 16, 1, 1, 4),
    "one rank": (2, 16, 20, 1, 1, 1),
    "one slot a rank": (2, 16, 24, 1, 1, 24),
    "one expert": (2, 1, 4, 1, 1, 4),
    "more slots a rank than experts": (2, 3, 16, 1, 1, 2),
    "one layer": (1, 16, 18, 1, 1, 6),
}


def oracle_greedy(weights: list[int], packs: int) -> tuple[list[int], list[int]]:
    """Heaviest first, each into the lightest pack with room."""
    room = len(weights) // packs
    load, size = [0] * packs, [0] * packs
    index, place = [0] * len(weights), [0] * len(weights)
    for item in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
        pack = min((p for p in range(packs) if size[p] < room), key=lambda p: (load[p], p))
        index[item], place[item] = pack, size[pack]
        load[pack] += weights[item]
        size[pack] += 1
    return index, place


def oracle_replicate(weights: list[int], slots: int) -> tuple[list[int], list[int], list[int]]:
    """Each redundant slot to the expert with the largest weight per replica."""
    expert, rank, counts = list(range(len(weights))), [0] * len(weights), [1] * len(weights)
    for _ in range(slots - len(weights)):
        heaviest = max(range(len(weights)), key=lambda e: (weights[e] / counts[e], -e))
        expert.append(heaviest)
        rank.append(counts[heaviest])
        counts[heaviest] += 1
    return expert, rank, counts


def check_contract(shape: tuple[int, ...], phy2log: Any, log2phy: Any, logcnt: Any) -> None:
    layers, experts, slots, groups, nodes, _ = shape
    assert tuple(phy2log.shape) == (layers, slots)
    assert tuple(logcnt.shape) == (layers, experts)
    assert tuple(log2phy.shape) == (layers, experts, int(logcnt.max()))
    for layer in range(layers):
        row = phy2log[layer].tolist()
        for expert in range(experts):
            where = [slot for slot, held in enumerate(row) if held == expert]
            assert len(where) == logcnt[layer, expert] >= 1
            padding = [-1] * (log2phy.shape[2] - len(where))
            assert sorted(log2phy[layer, expert, : len(where)].tolist()) == where
            assert log2phy[layer, expert, len(where) :].tolist() == padding
        if groups % nodes == 0:
            for node in range(nodes):
                held = {
                    expert // (experts // groups) for expert in row[node * slots // nodes : (node + 1) * slots // nodes]
                }
                assert len(held) == groups // nodes


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_rebalance_experts_keeps_the_published_contract(shape: tuple[int, ...]) -> None:
    layers, experts, *counts = shape
    weight = torch.from_numpy(random_load(layers, experts, np.random.default_rng(0)))
    maps = rebalance_experts(weight, *counts, **QUICK)
    assert all(array.dtype == torch.int64 for array in maps)
    check_contract(shape, *maps)


def test_the_defaults_plan_positionally_as_the_original_is_called() -> None:
    weight = torch.randint(1, 200, (2, 12), generator=torch.Generator().manual_seed(0))
    maps = rebalance_experts(weight, 16, 4, 2, 8)
    check_contract((2, 12, 16, 4, 2, 8), *maps)


KINDS = {
    "numpy int64": lambda load: load.astype(np.int64),
    "numpy uint16": lambda load: load.astype(np.uint16),
    "numpy float32": lambda load: load.astype(np.float32),
    "numpy float64": lambda load: load,
    "torch int64": lambda load: torch.from_numpy(load.astype(np.int64)),
    "torch int32": lambda load: torch.from_numpy(load.astype(np.int32)),
    "torch float16": lambda load: torch.from_numpy(load).half(),
    "torch bfloat16": lambda load: torch.from_numpy(load).bfloat16(),
    "torch float32": lambda load: torch.from_numpy(load).float(),
    "torch float64": lambda load: torch.from_numpy(load),
    "torch with gradient": lambda load: torch.from_numpy(load).requires_grad_(),
    "torch, not contiguous": lambda load: torch.from_numpy(np.ascontiguousarray(load.T)).T,
    "numpy, Fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_array_gives_the_same_maps_in_its_own_kind(kind: str) -> None:
    load = np.random.default_rng(1).integers(0, 128, (3, 16)).astype(np.float64)  # exact in bfloat16
    weight = KINDS[kind](load)
    expected = rebalance_experts(load, 24, 1, 1, 4, **QUICK)
    for found, wanted in zip(rebalance_experts(weight, 24, 1, 1, 4, **QUICK), expected, strict=True):
        assert isinstance(found, torch.Tensor if kind.startswith("torch") else np.ndarray)
        assert str(found.dtype).endswith("int64")
        assert found.tolist() == wanted.tolist()


def test_weights_are_left_as_they_were() -> None:
    weight = torch.arange(32.0).reshape(2, 16)
    before = weight.clone()
    rebalance_experts(weight, 24, 1, 1, 4, **QUICK)
    assert torch.equal(weight, before)


def test_layers_without_tokens_are_planned_like_any_other() -> None:
    shape = (2, 8, 12, 1, 1, 4)
    maps = rebalance_experts(np.zeros((2, 8)), *shape[2:], **QUICK)
    check_contract(shape, *maps)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ((25, 1, 1, 4), "25 slots do not spread evenly over 4 ranks"),
        ((8, 1, 1, 4), "8 slots cannot hold 16 logical experts"),
        ((24, 4, 2, 3), "3 ranks do not spread evenly over 2 nodes"),
        ((24, 6, 2, 4), "16 logical experts do not form 6 equal groups"),
    ],
)
def test_counts_that_do_not_fit_are_assertion_errors_with_a_sentence(counts: tuple[int, ...], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        rebalance_experts(np.ones((1, 16)), *counts)


def test_groups_are_not_looked_at_when_the_plan_is_global() -> None:
    # The original checks groups only on its hierarchical path.
    maps = rebalance_experts(np.ones((1, 16)), 24, 5, 2, 4, **QUICK)
    check_contract((1, 16, 24, 1, 1, 4), *maps)


@pytest.mark.parametrize("weight", [np.ones(4), np.ones((2, 2, 4)), torch.ones(2, 2, 4)])
def test_weights_of_another_shape_are_refused(weight: Any) -> None:
    with pytest.raises(ValueError, match="weight has shape"):
        rebalance_experts(weight, 8, 1, 1, 2)


def test_replicate_experts_gives_the_published_answer() -> None:
    load = random_load(24, 12, np.random.default_rng(2))
    # Powers of two divide without rounding, so the oracle's floats are ours.
    load = np.exp2(np.round(np.log2(load + 1)))
    for slots in (12, 13, 20, 36):
        phy2log, rank, logcnt = replicate_experts(load, slots)
        for layer, weights in enumerate(load.tolist()):
            expected = oracle_replicate(weights, slots)
            assert (phy2log[layer].tolist(), rank[layer].tolist(), logcnt[layer].tolist()) == expected


def test_replicate_experts_returns_tensors_for_tensors() -> None:
    maps = replicate_experts(torch.tensor([[6.0, 3.0, 1.0]]), 5)
    assert [array.dtype for array in maps] == [torch.int64] * 3
    assert [tuple(array.shape) for array in maps] == [(1, 5), (1, 5), (1, 3)]


def test_replicate_experts_refuses_fewer_slots_than_experts() -> None:
    with pytest.raises(AssertionError, match="4 physical experts cannot hold 5 logical ones"):
        replicate_experts(np.ones((1, 5)), 4)


def test_one_restart_without_swaps_is_the_published_greedy() -> None:
    rng = np.random.default_rng(3)
    weight = rng.integers(0, 1 << 20, (20, 24))
    weight[:, 0] = 1 << 20  # a power of two on top, so that scaling to integers is exact
    pack_index, rank_in_pack = balanced_packing(weight, 4, restarts=1, refined=1, swaps=0)
    for layer, weights in enumerate(weight.tolist()):
        assert (pack_index[layer].tolist(), rank_in_pack[layer].tolist()) == oracle_greedy(weights, 4)


@pytest.mark.parametrize("packs", [1, 2, 3, 4, 6, 12])
def test_restarts_never_leave_more_imbalance_than_the_greedy_nor_refinement_than_restarts(packs: int) -> None:
    weight = random_load(24, 12, np.random.default_rng(4))

    def imbalance(**settings: int) -> Any:
        index, place = balanced_packing(weight, packs, **settings)
        assert all(sorted(row) == sorted(list(range(packs)) * (12 // packs)) for row in index.tolist())
        assert len({*zip(index[0].tolist(), place[0].tolist(), strict=True)}) == 12
        load = np.zeros((24, packs))
        np.add.at(load, (np.arange(24)[:, None], index), weight)
        return np.ptp(load, axis=1)

    slack = 1e-11 * weight.max(axis=1)
    greedy, pruned, refined = imbalance(restarts=1, swaps=0), imbalance(restarts=64, swaps=0), imbalance(restarts=64)
    assert (pruned <= greedy + slack).all()
    assert (refined <= pruned + slack).all()


def test_packs_must_divide_the_items() -> None:
    with pytest.raises(AssertionError, match="7 items do not fill 2 packs evenly"):
        balanced_packing(np.ones((1, 7)), 2)


def test_balanced_packing_takes_its_parameters_by_position() -> None:
    weight = torch.rand(2, 12, generator=torch.Generator().manual_seed(0))
    by_position = balanced_packing(weight, 3, 32, 8, 0.1, 10, 2, 5, "auto")
    by_name = balanced_packing(
        weight, 3, restarts=32, refined=8, noise=0.1, swaps=10, extremes=2, seed=5, backend="numba"
    )
    for one, other in zip(by_position, by_name, strict=True):
        assert one.dtype == torch.int64
        assert torch.equal(one, other)


def test_nothing_reads_or_writes_global_random_state() -> None:
    weight = np.random.default_rng(5).random((2, 16))
    np.random.seed(1)  # noqa: NPY002 - the global state is what is watched
    torch.manual_seed(1)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    first = rebalance_experts(weight, 24, 1, 1, 4, **QUICK)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    for one, other in zip(first, rebalance_experts(weight, 24, 1, 1, 4, **QUICK), strict=True):
        assert one.tolist() == other.tolist()


def test_dormant_replicas_keep_their_weights_and_get_no_tokens() -> None:
    model = eq.LatencyModel(20, 12, 4, 0.06)
    load = np.random.default_rng(0).integers(1, 1000, (3, 16))
    plan = eq.solve(eq.PlacementProblem(load, eq.Cluster(4, 6), latency=model, routed_per_step=[40, 40_000]))
    for size in (40, 40_000):
        phy2log, log2phy, logcnt = plan_maps(plan, size)
        shares = np.asarray(plan.shares_for(size))
        assert (phy2log == plan.placement.physical_to_logical).all()
        assert ((log2phy >= 0).sum(axis=2) == logcnt).all()
        for layer in range(3):
            listed = np.sort(log2phy[layer][log2phy[layer] >= 0])
            assert listed.tolist() == np.flatnonzero(shares[layer] > 0).tolist()
            for expert in range(16):
                slots = log2phy[layer, expert][: logcnt[layer, expert]]
                assert (phy2log[layer, slots] == expert).all()
    assert plan_maps(plan, 40)[2].sum() < plan_maps(plan)[2].sum()


def test_without_shares_the_maps_of_a_plan_are_those_of_its_placement() -> None:
    plan = eq.solve(eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(2, 3)))
    assert plan_maps(plan)[1].tolist() == plan.placement.logical_to_physical.tolist()


def test_uneven_shares_are_nothing_that_these_maps_can_say() -> None:
    plan = eq.solve(eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(2, 3)))
    values = np.array(eq.Shares.even(plan.placement).values)
    first, second = np.flatnonzero(plan.placement.physical_to_logical[0] == 0)
    values[0, first], values[0, second] = 0.75, 0.25
    with pytest.raises(InvalidInputError, match="different shares"):
        plan_maps(dataclasses.replace(plan, shares=eq.Shares(values, plan.placement)))
