"""How to plan: the strategy, and what travels with it from a call to the kernels; checked here and nowhere else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import flag
from equipoise.backends import BACKENDS, Backend, choose_backend
from equipoise.dispatch import Choose
from equipoise.dispatch.connected import connect_ranks
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem, as_problem
from equipoise.provenance import Provenance
from equipoise.restarts import check_seed
from equipoise.robust import hedged, start_problem
from equipoise.robust.back_test import Plans, outlook
from equipoise.strategies import DEFAULT, Found, Strategy, choose_strategy
from equipoise.threads import num_threads

__all__ = ["CONNECTING", "How"]

CONNECTING = "swaps that connect"
"""The stage in which ranks are connected."""

MAX_GAP = 0.001  # of strategies that have none


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
    connected : bool, default False
        Whether the ranks of each layer are then connected by the experts they share, at no more than ``max_gap`` of
        the strategy, 0.1 % where it has none; see ``equipoise.dispatch.connected``.

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
    connected: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))
        num_threads(self.threads)
        object.__setattr__(self, "connected", flag(self.connected, "connected"))

    @classmethod
    def of(
        cls,
        strategy: str = DEFAULT,
        *,
        seed: int = 0,
        backend: str = "auto",
        threads: int | None = None,
        device: str = "cpu",
        connected: bool = False,
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
        return cls(chosen, seed, choose_backend(backend, device, chosen.backends, chosen.name), threads, connected)

    @property
    def max_gap(self) -> float:
        """How much busier connecting may make the busiest rank, and what joint descent calls level."""
        gap: float = getattr(self.strategy, "max_gap", MAX_GAP)
        return gap

    def find(self, problem: PlacementProblem) -> Found:
        """Return what the strategy finds for ``problem``; of a forecast, after swaps against its errors."""
        as_problem(problem)
        start = start_problem(problem)
        found = self.strategy.place(start, self.seed, self.backend, self.threads)
        if start is not problem:
            held = hedged(problem, found.physical_to_logical, self.threads)
            found = dataclasses.replace(found, physical_to_logical=held)
        if not self.connected:
            return found
        table, swaps = connect_ranks(problem, found.physical_to_logical, self.max_gap, threads=self.threads)
        stages = {**found.stages, CONNECTING: int(swaps.sum())}
        return dataclasses.replace(found, physical_to_logical=table, stages=stages)

    def place(self, problem: PlacementProblem) -> tuple[Found, Placement]:
        """Return what the strategy finds for ``problem`` and its placement, without the proof."""
        found = self.find(problem)
        return found, Placement(found.physical_to_logical, problem.cluster.num_ranks, problem.num_logical_experts)

    def again(self, problem: PlacementProblem, layers: NDArray[np.int64]) -> Placement:
        """Return the placement of some ``layers``, which ``problem`` is of; see ``equipoise.robust.back_test``."""
        return self.place(problem)[1]

    def finish(
        self,
        problem: PlacementProblem,
        placement: Placement,
        provenance: Provenance,
        choose: Choose,
        *again: Plans,
        **proof: Any,
    ) -> Plan:
        """Return the plan of a placement that was found: its shares, its proof, and what it records of itself.

        ``choose`` gives it shares; ``again`` are ways in which some of its layers are planned again, to say what to
        expect of a forecast; ``proof`` is as in ``Plan.of``.
        """
        if self.connected:
            provenance = provenance.connected(placement, problem.load)
        if problem.forecast is not None:
            provenance = provenance.with_forecast(outlook(problem, *again))
        return Plan.of(problem, placement, provenance, shares=choose(placement, problem.load), **proof)
