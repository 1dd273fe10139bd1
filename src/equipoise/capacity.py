"""How many redundant experts: balancedness against slots, what is found and what is proved impossible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count, finite
from equipoise.bounds import lower_bounds
from equipoise.certificate import check_placement
from equipoise.errors import InvalidInputError, shown
from equipoise.how import How
from equipoise.metrics import as_layers
from equipoise.metrics import balancedness as balancedness_of
from equipoise.problem import Cluster, PlacementProblem, as_problem
from equipoise.steps import Steps
from equipoise.strategies import DEFAULT, parameters_of

__all__ = ["Answer", "Capacity", "CapacityPoint", "slots_for"]

Floats = NDArray[np.float64]
ROUNDING = 1e-12  # relative; what float64 may add to or take from a balancedness
FEWEST_POINTS = 3  # a curve needs a few, even where the first reaches the target


@dataclass(frozen=True, eq=False)
class CapacityPoint:
    """What one number of slots is good for.

    Attributes
    ----------
    cluster : Cluster
        The ranks and nodes that were asked about, with this many slots.
    num_redundant_experts : int
        Slots in a layer beyond one for each logical expert.
    balancedness : float64 array, shape (num_layers,)
        Mean / max rank load of a placement that was found and checked.
    limit : float64 array, shape (num_layers,)
        Mean rank load / lower bound: no placement in so many slots has a greater balancedness.
    steps : Steps or None, default None
        Of a load that is the sum of several steps: how many, and what that placement is worth step by step.
    """

    cluster: Cluster
    num_redundant_experts: int
    balancedness: Floats
    limit: Floats
    steps: Steps | None = None

    def __post_init__(self) -> None:
        as_instance(self.cluster, Cluster, "cluster", "a Cluster(num_ranks=..., slots_per_rank=...)")
        count(self.num_redundant_experts, "num_redundant_experts", least=0)
        for name in ("balancedness", "limit"):
            object.__setattr__(self, name, as_layers(getattr(self, name), name))

    @property
    def num_slots(self) -> int:
        """Slots in one layer, over all ranks."""
        return self.cluster.num_slots

    @property
    def mean_balancedness(self) -> float:
        """Balancedness averaged over the layers."""
        return float(self.balancedness.mean())

    @property
    def worst_balancedness(self) -> float:
        """Balancedness of the worst layer."""
        return float(self.balancedness.min())

    @property
    def mean_limit(self) -> float:
        """No mean balancedness in so many slots is greater."""
        return float(self.limit.mean())

    @property
    def worst_limit(self) -> float:
        """In no placement in so many slots has the worst layer a greater balancedness."""
        return float(self.limit.min())


@dataclass(frozen=True)
class Answer:
    """The fewest slots that reach a target, as far as that is known.

    Attributes
    ----------
    found : int or None
        The fewest slots of a layer in which a placement that reaches the target was found; None if none was.
    undecided : tuple of int
        Fewer slots, in which none was found and none is proved impossible.
    impossible : tuple of int
        Fewer slots, in which it is proved that no placement reaches the target.
    never : bool
        Whether it is proved that no number of slots reaches the target: expert groups on nodes prevent it.
    """

    found: int | None
    undecided: tuple[int, ...]
    impossible: tuple[int, ...]
    never: bool


@dataclass(frozen=True, eq=False)
class Capacity:
    """Balancedness against slots, and how many of them a target takes; what ``slots_for`` returns.

    Attributes
    ----------
    target : float
    points : tuple of CapacityPoint
        One for each number of slots a rank, ascending from the fewest that hold every expert.
    ceiling : float64 array, shape (num_layers,)
        No number of slots gives a greater balancedness: 1, less where expert groups must stay whole on nodes.
    """

    target: float
    points: tuple[CapacityPoint, ...]
    ceiling: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", _target(self.target))
        if not isinstance(self.points, tuple) or not all(isinstance(point, CapacityPoint) for point in self.points):
            raise InvalidInputError(f"points is {shown(self.points)}; it must be a tuple of CapacityPoint.")
        object.__setattr__(self, "ceiling", as_layers(self.ceiling, "ceiling"))

    @property
    def mean(self) -> Answer:
        """The fewest slots whose balancedness, averaged over the layers, reaches the target."""
        return self._answer(np.mean)

    @property
    def worst(self) -> Answer:
        """The fewest slots whose balancedness reaches the target in every layer."""
        return self._answer(np.min)

    def _answer(self, over: Callable[[Floats], Any]) -> Answer:
        undecided: list[int] = []
        impossible: list[int] = []
        never = over(self.ceiling) < self.target * (1 - ROUNDING)
        for point in self.points:
            if over(point.balancedness) >= self.target * (1 - ROUNDING):
                return Answer(point.num_slots, tuple(undecided), tuple(impossible), never=False)
            proved = never or over(point.limit) < self.target * (1 - ROUNDING)
            (impossible if proved else undecided).append(point.num_slots)
        return Answer(None, tuple(undecided), tuple(impossible), bool(never))


def slots_for(
    problem: PlacementProblem,
    balancedness: float = 0.99,
    *,
    most_slots: int | None = None,
    strategy: str = DEFAULT,
    seed: int = 0,
    backend: str = "auto",
    threads: int | None = None,
    **parameters: Any,
) -> Capacity:
    """Find how many slots, and so how many redundant experts, a balancedness takes.

    Parameters
    ----------
    problem : PlacementProblem
        Its ranks, nodes and expert groups stay; its slots a rank are not looked at.
    balancedness : float, default 0.99
        The target, mean / max rank load, above 0 and at most 1.
    most_slots : int or None, default None
        Do not try more slots than that in a layer. None: four for each expert, and at least four more a rank than
        the fewest that hold every expert.
    strategy, seed, backend, threads, **parameters
        As in ``equipoise.solve``. A strategy's ``max_gap`` is by default 0.001, less for targets above 0.998.

    Returns
    -------
    Capacity
        A point for each multiple of the ranks, from the fewest slots until the worst layer reaches the target,
        and at least three. ``.mean`` and ``.worst`` answer for the average over layers and for every layer.

    Raises
    ------
    InvalidInputError
        If the target is outside (0, 1], or ``most_slots`` cannot hold every expert.
    UnknownNameError, MissingDependencyError
        As ``equipoise.solve`` does.

    Notes
    -----
    Every balancedness is that of a checked placement, every limit is proved. That more slots are never worse is not
    assumed, so no number of slots is skipped; a search that works harder may decide what is left undecided. A layer
    without tokens is perfectly balanced, and counts as such in the mean.

    Examples
    --------
    >>> problem = PlacementProblem([[6, 2, 2, 2]], Cluster(num_ranks=2, slots_per_rank=2))
    >>> capacity = slots_for(problem, balancedness=1.0)
    >>> capacity.mean.found, capacity.mean.impossible
    (6, (4,))
    """
    as_problem(problem)
    target = _target(balancedness)
    if "max_gap" in parameters_of(strategy):
        parameters.setdefault("max_gap", min(0.001, (1 / target - 1) / 2))
    how = How.of(strategy, seed=seed, backend=backend, threads=threads, **parameters)
    capacity = Capacity(target, (), _ceiling(problem))
    for each in _sizes(problem, most_slots):
        point = _point(each, how, problem.steps)
        capacity = replace(capacity, points=(*capacity.points, point))
        settled = all(answer.found is not None or answer.never for answer in (capacity.mean, capacity.worst))
        if settled and len(capacity.points) >= FEWEST_POINTS:
            break
    return capacity


def _target(value: Any) -> float:
    rule = "mean / max rank load, a number above 0 and at most 1, such as 0.99"
    number = finite(value, "balancedness", rule)
    if not 0 < number <= 1:
        raise InvalidInputError(f"balancedness is {shown(value)}; it must be {rule}.")
    return number


def _sizes(problem: PlacementProblem, most_slots: int | None) -> Iterator[PlacementProblem]:
    """Yield ``problem`` with ever more slots a rank. With all experts of its node on every rank, more add nothing."""
    ranks, experts = problem.cluster.num_ranks, problem.num_logical_experts
    fewest, all_experts = math.ceil(experts / ranks), _experts_on_a_node(problem)
    if most_slots is None:
        most = max(4 * experts // ranks, fewest + 4)
    else:
        most = count(most_slots, "most_slots") // ranks
        if most < fewest:
            raise InvalidInputError(
                f"most_slots is {most_slots}, and {experts} logical experts on {ranks} ranks need at least "
                f"{fewest * ranks} slots. Allow at least so many."
            )
    for slots in range(fewest, min(most, all_experts) + 1):
        yield _with_slots(problem, slots)


def _experts_on_a_node(problem: PlacementProblem) -> int:
    return problem.num_logical_experts // (problem.cluster.num_nodes if problem.is_hierarchical else 1)


def _with_slots(problem: PlacementProblem, slots_per_rank: int) -> PlacementProblem:
    """Return ``problem`` with so many slots a rank, and its load as it is: what is asked for is not the next window."""
    return replace(problem.without_forecast, cluster=replace(problem.cluster, slots_per_rank=slots_per_rank))


def _ceiling(problem: PlacementProblem) -> Floats:
    """Return what no number of slots exceeds: with every expert of its node on every rank, only groups limit it."""
    if not problem.is_hierarchical:
        return np.ones(problem.num_layers)
    return _limit(_with_slots(problem, _experts_on_a_node(problem)))


def _limit(problem: PlacementProblem) -> Floats:
    lower, _ = lower_bounds(problem)
    mean = problem.load.sum(axis=1) / problem.cluster.num_ranks
    limit: Floats = np.minimum(np.divide(mean, lower, out=np.ones_like(mean), where=lower > 0), 1.0)
    return limit


def _point(problem: PlacementProblem, how: How, windows: Floats | None) -> CapacityPoint:
    _, placement = how.place(problem)
    achieved = np.minimum(balancedness_of(check_placement(problem, placement)), 1.0)
    limit = np.maximum(_limit(problem), achieved)  # equal but for rounding where a bound is met
    steps = Steps.of(placement, windows)
    return CapacityPoint(problem.cluster, problem.num_redundant_experts, achieved, limit, steps)
