"""What a lower bound on the busiest rank is: a row of the table, the same kind of thing whatever its argument.

Write w_e for the load of expert e, c_e for its replica count, W for the sum of the loads, R ranks, S slots a rank,
P = R S slots, T for the busiest rank. All bounds hold for every placement of the problem in which each slot of a rank
that is left holds an expert, those with two replicas of an expert on one rank included. Replicas of an expert get even
parts of its tokens; where a bound holds for any other parts too, its row says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.problem import PlacementProblem

__all__ = ["GROUPS", "LIFTED_BY", "MEAN", "SLOTS", "Bound", "always", "open_beyond"]

Floats = NDArray[np.float64]
Asks = Callable[[PlacementProblem, Floats, Floats], NDArray[np.bool_]]

MEAN, SLOTS, GROUPS = "the mean", "replication granularity", "expert groups on nodes"
LIFTED_BY = {
    MEAN: "beyond the gap there is nothing to gain; only more ranks lift it",
    SLOTS: "replicas come in whole slots; more redundant experts lift it",
    GROUPS: "whole groups make one node too busy; planning globally lifts it",
}
"""What can hold the busiest rank up, in words, and what would lift it."""


def always(problem: PlacementProblem, known: Floats, achieved: Floats) -> NDArray[np.bool_]:
    """Ask in every layer."""
    return np.ones(problem.num_layers, dtype=np.bool_)


def open_beyond(gap: float) -> Asks:
    """Ask where what is ``achieved`` is not known to be within ``gap`` of the best."""

    def is_open(problem: PlacementProblem, known: Floats, achieved: Floats) -> NDArray[np.bool_]:
        """Whether the layers carry more than their gap allows."""
        return achieved > known * (1 + gap)

    return is_open


@dataclass(frozen=True)
class Bound:
    """One argument why no placement has a less busy rank.

    Attributes
    ----------
    name : str
    argument : str
        In a sentence.
    proof : str
        In words: the page of the file that has the code.
    domain : str
        In words: the problems that it says something about.
    holds : callable
        ``holds(problem)``: whether the problem is in the domain.
    prove : callable
        ``prove(problem, known, achieved)``: the bound of each layer, float64 [layers], in tokens per window. ``known``
        is what other bounds prove, and where the search for this one may begin; ``achieved`` what some placement is
        known to reach, infinite where none is, which saves time and changes nothing.
    held_up_by : str
        A key of ``LIFTED_BY``: what holds the busiest rank up where this bound binds.
    any_shares : bool, default False
        Whether it holds however the tokens of an expert are shared among its replicas, and not only for even shares.
    quick : bool, default False
        Whether it takes next to no time, and holds where slots are empty too: re-planning within a limit asks no more.
    worth : callable, default ``always``
        ``worth(problem, known, achieved)``, bool [layers]: where certifying asks for it, in order of the table.
    guides : callable or None, default None
        The same for the rows that joint descent leaves above its target: where the bound is worth knowing before the
        search goes on. None: nowhere.
    begins : bool, default False
        Whether joint descent asks before it begins.
    """

    name: str
    argument: str
    proof: str
    domain: str
    holds: Callable[[PlacementProblem], bool]
    prove: Callable[[PlacementProblem, Floats, Floats], Floats]
    held_up_by: str
    any_shares: bool = False
    quick: bool = False
    worth: Asks = always
    guides: Asks | None = None
    begins: bool = False
