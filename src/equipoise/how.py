"""How to plan: the strategy, and what travels with it from a call to the kernels; checked here and nowhere else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from equipoise.backends import BACKENDS, Backend, choose_backend
from equipoise.placement import Placement
from equipoise.problem import PlacementProblem, as_problem
from equipoise.restarts import check_seed
from equipoise.robust import hedged, start_problem
from equipoise.strategies import DEFAULT, Found, Strategy, choose_strategy
from equipoise.threads import num_threads

__all__ = ["How"]


@dataclass(frozen=True)
class How:
    """How to plan.

    Attributes
    ----------
    strategy : Strategy
        With its parameters.
    seed : int, default 0
        From 0 to 2**64 - 1.
    backend : Backend
        One that the strategy runs on, and that runs here.
    threads : int or None, default None
        None uses all processors that the process may run on.

    Raises
    ------
    InvalidInputError
        If the seed or the threads break their rule.

    Examples
    --------
    >>> How.of("plain-greedy", threads=1).backend.name
    'numba'
    """

    strategy: Strategy
    seed: int = 0
    backend: Backend = BACKENDS["numba"]
    threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))
        num_threads(self.threads)

    @classmethod
    def of(
        cls,
        strategy: str = DEFAULT,
        *,
        seed: int = 0,
        backend: str = "auto",
        threads: int | None = None,
        device: str = "cpu",
        **parameters: Any,
    ) -> How:
        """Return how to plan, from names as callers type them; ``device`` is where the loads live.

        Raises
        ------
        UnknownNameError
            If no strategy, parameter or backend has that name.
        InvalidInputError
            If a value breaks its rule, or the strategy does not run on the backend that was asked for by name.
        MissingDependencyError
            If the backend was asked for by name and cannot run here.
        """
        chosen = choose_strategy(strategy, **parameters)
        return cls(chosen, seed, choose_backend(backend, device, chosen.backends, chosen.name), threads)

    def find(self, problem: PlacementProblem) -> Found:
        """Return what the strategy finds for ``problem``; of a forecast, after swaps against its errors."""
        as_problem(problem)
        start = start_problem(problem)
        found = self.strategy.place(start, self.seed, self.backend, self.threads)
        if start is problem:
            return found
        held = hedged(problem, found.physical_to_logical, self.threads)
        return dataclasses.replace(found, physical_to_logical=held)

    def place(self, problem: PlacementProblem) -> tuple[Found, Placement]:
        """Return what the strategy finds for ``problem`` and its placement, without the proof."""
        found = self.find(problem)
        return found, Placement(found.physical_to_logical, problem.cluster.num_ranks, problem.num_logical_experts)
