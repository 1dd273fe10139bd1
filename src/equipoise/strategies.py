"""Ways to plan: each is a row of data that knows how to place a problem, chosen by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from equipoise.backends import choose_backend
from equipoise.errors import UnknownNameError
from equipoise.fixed_point import replica_weight, to_fixed_point
from equipoise.hierarchy import split_by_node
from equipoise.packing import Settings, pack_items, separate_duplicates
from equipoise.problem import PlacementProblem

__all__ = ["STRATEGIES", "PlainGreedy", "PrunedRestarts", "Strategy", "choose_strategy"]


@dataclass(frozen=True)
class Found:
    """What a strategy returns: the slots, and how it came to them."""

    physical_to_logical: NDArray[np.int32]
    implementation: str
    stages: dict[str, int]


class Strategy(Protocol):
    """A frozen dataclass of parameters that can place a problem."""

    name: str

    def place(self, problem: PlacementProblem, seed: int, backend: str, threads: int | None) -> Found:
        """Return a placement of ``problem``; the same for the same arguments, whatever ``backend`` and ``threads``."""


@dataclass(frozen=True)
class PrunedRestarts(Settings):
    """Massively parallel random restarts with pruned refinement: the strategy this project is named for.

    Replica counts by d'Hondt, groups to nodes and replicas to ranks by pruned restarts; see
    ``equipoise.kernels.packing``. Parameters are those of ``Settings``.
    """

    name = "pruned-restarts"

    def place(self, problem: PlacementProblem, seed: int, backend: str, threads: int | None) -> Found:
        """Return the best of the refined survivors of each layer, with duplicates moved apart."""
        from equipoise.kernels.replication.numba import replicate

        chosen = choose_backend(backend)
        fixed = to_fixed_point(problem.load, problem.cluster.num_ranks)

        def pack(weight: NDArray[np.int64], packs: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
            return pack_items(weight, packs, self, seed, chosen, threads)

        node_of_group = None
        if problem.is_hierarchical:
            assert problem.num_expert_groups is not None
            group_weight = fixed.reshape(len(fixed), problem.num_expert_groups, -1).sum(axis=2)
            node_of_group, _ = pack(group_weight, problem.cluster.num_nodes)
        rows = split_by_node(problem, fixed, node_of_group)

        physical_to_logical, replica_count = replicate(rows.weight, rows.num_slots, rows.num_ranks)
        rank, place = pack(replica_weight(rows.weight, replica_count, physical_to_logical), rows.num_ranks)
        slots_per_rank = rows.num_slots // rows.num_ranks
        held = np.empty_like(physical_to_logical)
        np.put_along_axis(held, (rank * slots_per_rank + place).astype(np.int64), physical_to_logical, axis=1)
        separate_duplicates(held, rows.num_ranks, rows.weight)
        stages = {"restarts": self.restarts * len(held), "refined": min(self.refined, self.restarts) * len(held)}
        return Found(rows.join(held, problem.num_layers), chosen.name, stages)


@dataclass(frozen=True)
class PlainGreedy:
    """The published method: d'Hondt replica counts, then one greedy packing. It is restart 0 of pruned restarts."""

    name = "plain-greedy"

    def place(self, problem: PlacementProblem, seed: int, backend: str, threads: int | None) -> Found:
        """Return the greedy packing of each layer, with duplicates moved apart."""
        found = PrunedRestarts(restarts=1, refined=1, noise=0.0, swaps=0).place(problem, seed, backend, threads)
        return dataclasses.replace(found, stages={})


STRATEGIES: dict[str, type[PrunedRestarts] | type[PlainGreedy]] = {
    strategy.name: strategy for strategy in (PrunedRestarts, PlainGreedy)
}


def choose_strategy(name: str, **parameters: Any) -> Strategy:
    """Return the strategy called ``name`` with the given parameters.

    Raises
    ------
    UnknownNameError
        If there is no such strategy, or it has no such parameter.

    Examples
    --------
    >>> choose_strategy("pruned-restarts", restarts=256)
    PrunedRestarts(restarts=256, refined=64, noise=0.2, swaps=50, extremes=4)
    """
    if name not in STRATEGIES:
        raise UnknownNameError(f"strategy is {name!r}; it must be one of {', '.join(STRATEGIES)}.")
    known = [field.name for field in dataclasses.fields(STRATEGIES[name])]
    for parameter in parameters:
        if parameter not in known:
            raise UnknownNameError(
                f"{name} has no parameter {parameter!r}; it has {', '.join(known) if known else 'none'}."
            )
    return STRATEGIES[name](**parameters)
