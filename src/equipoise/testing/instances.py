"""Random problems: small, ordinary and awkward."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count
from equipoise.arrays import check_table
from equipoise.problem import Cluster, PlacementProblem

__all__ = ["TINY_SHAPES", "random_load", "random_problems"]

TINY_SHAPES: tuple[tuple[int, int, int], ...] = (
    *((experts, 1, 3) for experts in (1, 2, 3)),
    *((experts, ranks, 1) for ranks in (2, 3, 4, 5) for experts in range(1, ranks + 1)),
    *((experts, 2, slots) for slots in (2, 3, 4) for experts in range(2, min(2 * slots, 5) + 1)),
    *((experts, 3, slots) for slots in (2, 3) for experts in range(2, 6)),
    *((experts, 4, 2) for experts in range(2, 6)),
    *((experts, 5, 2) for experts in (3, 4)),
)
"""(experts, ranks, slots per rank) that ``brute_force_optimum`` handles in milliseconds."""


def random_load(num_layers: int, num_experts: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return loads of shape (num_layers, num_experts) that cycle through what goes wrong in planners.

    Even, skewed, tied small integers, mostly unused, one hot expert, powers of two, all zeros.
    """
    shape = (count(num_layers, "num_layers"), count(num_experts, "num_experts"))
    check_table(*shape, "the load")
    as_instance(rng, np.random.Generator, "rng", "a numpy.random.default_rng(seed)")
    kinds = (
        rng.uniform(0.5, 1.5, shape),
        rng.gamma(0.3, size=shape),
        rng.integers(0, 4, shape).astype(np.float64),
        rng.integers(0, 1000, shape) * (rng.random(shape) < 0.4),
        np.eye(shape[1])[rng.integers(shape[1], size=shape[0])] * 7.0 + 0.01,
        2.0 ** rng.integers(-20, 20, shape),
        rng.pareto(0.8, shape),
        np.zeros(shape),
    )
    layer = np.arange(len(kinds[0]))
    load: NDArray[np.float64] = np.stack(kinds)[layer % len(kinds), layer]
    return load


def random_problems(
    number: int, seed: int = 0, *, most_ranks: int = 8, most_slots: int = 6, num_layers: int = 8
) -> Iterator[PlacementProblem]:
    """Yield ``number`` problems of random shape, hierarchical ones among them; the same for the same arguments.

    >>> [problem.cluster.num_slots for problem in random_problems(3)]
    [28, 5, 24]
    """
    number, seed = count(number, "number", least=0), count(seed, "seed", least=0, most=2**64 - 1)
    most_ranks, most_slots = count(most_ranks, "most_ranks"), count(most_slots, "most_slots")
    Cluster(most_ranks, most_slots)  # or it says that these are too many
    check_table(count(num_layers, "num_layers"), most_ranks * most_slots, "a problem")
    return _random_problems(number, np.random.default_rng(seed), most_ranks, most_slots, num_layers)


def _random_problems(
    number: int, rng: np.random.Generator, most_ranks: int, most_slots: int, num_layers: int
) -> Iterator[PlacementProblem]:
    for _ in range(number):
        ranks, slots = int(rng.integers(1, most_ranks + 1)), int(rng.integers(1, most_slots + 1))
        nodes = int(rng.choice([n for n in range(1, ranks + 1) if ranks % n == 0]))
        # Whole groups on whole nodes need the experts of a node to fit into it.
        experts = int(rng.integers(1, ranks * slots + 1))
        groups = int(rng.choice([g for g in range(1, experts + 1) if experts % g == 0]))
        load = random_load(num_layers, experts, rng)
        yield PlacementProblem(load, Cluster(ranks, slots, nodes), groups if rng.random() < 0.7 else None)
