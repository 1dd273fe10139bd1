"""Slots that experts trade, and layers that one expert dominates: what the search beyond the first descent promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import equipoise as eq
from descents import LAYERS, SHAPES, Kernels, assert_consistent, dealt
from equipoise.descent.facts import REACHED, TARGET

trade = Kernels("trade")


def excess_after(weight: NDArray[np.int64], ranks: Any, target: int, loser: int, gainer: int, rank: int) -> float:
    """Return the squared excess of the ranks after one trade, recounted from the slots."""
    held, replicas = ranks.expert.copy(), ranks.replicas.copy()
    held[rank][held[rank] == loser] = gainer
    replicas[loser] -= 1
    replicas[gainer] += 1
    over = np.maximum((weight // replicas)[held].sum(axis=1) - target, 0).astype(np.float64)
    return float((over * over).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_the_trades_that_are_tried_are_the_best_on_the_spot(shape: tuple[int, int, int], seed: int) -> None:
    experts, num_ranks, _ = shape
    layer = dealt(shape, seed, slack=1.002)
    weight, ranks, target = layer.weight, layer.ranks, layer.facts[TARGET]
    excess, found = np.empty(trade.TRIED), np.empty((trade.TRIED, 3), np.int64)
    never = np.full((2, experts), -trade.TENURE)
    number = trade._find_trades(layer, target, 0, never, excess, found)
    wanted = np.unique(ranks.expert[ranks.load > target])
    heaviest = ranks.expert[ranks.order[-1]]
    least = {}
    for rank in range(num_ranks):
        for loser in ranks.expert[rank]:
            for gainer in range(experts):
                if (
                    ranks.replicas[loser] > 1
                    and weight[loser] <= target * (ranks.replicas[loser] - 1)
                    and ranks.replicas[gainer] < num_ranks
                    and gainer not in ranks.expert[rank]
                    and (gainer in wanted or loser in heaviest)
                ):
                    after = excess_after(weight, ranks, target, loser, gainer, rank)
                    pair = (int(loser), gainer)
                    least[pair] = min(least.get(pair, np.inf), after)
    best = sorted(least.values())[: trade.TRIED]
    assert number == len(best)
    np.testing.assert_allclose(excess[:number], best, rtol=1e-9)
    for (loser, gainer, rank), after in zip(found[:number], excess[:number], strict=True):
        assert after == pytest.approx(excess_after(weight, ranks, target, loser, gainer, rank), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(8))
def test_trades_never_make_a_placement_worse_and_say_what_it_reaches(shape: tuple[int, int, int], seed: int) -> None:
    layer = dealt(shape, seed)
    before, target = layer.facts[REACHED], layer.facts[TARGET]
    trade.trade(layer, target, int(target * 1.002), 60)
    assert layer.facts[REACHED] <= before
    LAYERS.restore(layer, layer.best)
    assert_consistent(layer)
    assert layer.ranks.load.max() == layer.facts[REACHED]


def test_trades_find_counts_that_the_first_ones_are_far_from() -> None:
    better = 0
    for seed in range(8):
        layer = dealt((40, 16, 5), seed)
        before, target = layer.facts[REACHED], layer.facts[TARGET]
        trade.trade(layer, target, target, 60)
        better += layer.facts[REACHED] - target < (before - target) / 4
    assert better >= 6


# One expert with half of the load, or nearly all, which hardly fills the ranks that it needs, or cannot: the seed,
# layers and experts of such loads, the layer, ranks, slots, and what binds there.
DOMINATED = {
    "256 experts": (0, 150, 256, 143, 32, 9, "hottest"),
    "128": (0, 150, 128, 83, 16, 9, "mean"),
    "64": (92, 1, 64, 0, 16, 5, "hottest"),
}


@pytest.mark.parametrize("case", DOMINATED.values(), ids=DOMINATED.keys())
def test_a_layer_that_one_expert_dominates_is_planned_to_what_is_possible(
    case: tuple[int, int, int, int, int, int, str],
) -> None:
    seed, layers, experts, layer, ranks, slots, bound = case
    load = np.random.default_rng(seed).lognormal(0, 2.6, (layers, experts))[layer : layer + 1]
    certificate = eq.solve(eq.PlacementProblem(load, eq.Cluster(ranks, slots)), threads=1).certificate
    assert certificate.gap[0] <= 0.001
    assert certificate.bound == (bound,)
