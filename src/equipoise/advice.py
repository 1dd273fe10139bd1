"""How many slots are worth their time: microseconds a layer against slots and batch size, and a recommendation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, as_items, count, finite
from equipoise.errors import InvalidInputError, shown
from equipoise.how import How
from equipoise.latency import LatencyModel
from equipoise.metrics import as_layers
from equipoise.problem import PlacementProblem, as_problem
from equipoise.strategies import DEFAULT
from equipoise.timed import solve_in_time

__all__ = ["SlotTime", "SlotTimes", "slot_times"]

WORTH = 0.01  # a number of slots is worth its bytes where it saves so much of the layer
EXTRA_SIZES = 4  # numbers of slots a rank that are tried by default

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SlotTime:
    """What one number of slots takes, a mean over layers for each batch size.

    Attributes
    ----------
    num_slots, num_redundant_experts : int
    active : float64 array, shape (num_batch_sizes,)
        Microseconds that the busiest rank is expected to take with the best active set.
    everything : float64 array, same shape
        The same where tokens are balanced and every replica is active, as engines do.
    extra_bytes : float or None
        Bytes of each rank, all layers together, for slots beyond the fewest; None if those of an expert are not known.
    """

    num_slots: int
    num_redundant_experts: int
    active: Floats
    everything: Floats
    extra_bytes: float | None

    def __post_init__(self) -> None:
        count(self.num_slots, "num_slots")
        count(self.num_redundant_experts, "num_redundant_experts", least=0)
        for name in ("active", "everything"):
            object.__setattr__(self, name, as_layers(getattr(self, name), name))
        if len(self.active) != len(self.everything):
            raise InvalidInputError("active and everything are of different batch sizes; pass those of one plan.")
        if self.extra_bytes is not None:
            finite(self.extra_bytes, "extra_bytes")


@dataclass(frozen=True, eq=False)
class SlotTimes:
    """Microseconds a layer against slots and batch size; what ``slot_times`` returns.

    Attributes
    ----------
    latency : LatencyModel
    tokens_per_rank : tuple of float
        Ascending.
    points : tuple of SlotTime
        One for each number of slots a rank, ascending from the fewest that hold every expert.
    """

    latency: LatencyModel
    tokens_per_rank: tuple[float, ...]
    points: tuple[SlotTime, ...]

    def __post_init__(self) -> None:
        as_instance(self.latency, LatencyModel, "latency", "a LatencyModel")
        object.__setattr__(self, "tokens_per_rank", _sizes(self.tokens_per_rank))
        if not isinstance(self.points, tuple) or not all(isinstance(point, SlotTime) for point in self.points):
            raise InvalidInputError(f"points is {shown(self.points)}; it must be a tuple of SlotTime.")
        if not self.points or any(len(point.active) != len(self.tokens_per_rank) for point in self.points):
            raise InvalidInputError(
                f"points is of {len(self.points)} numbers of slots; each needs a time for each of "
                f"{len(self.tokens_per_rank)} batch sizes, and one at least is needed."
            )

    @property
    def break_even(self) -> float | None:
        """Tokens a rank from which on redundant replicas, all active, save time; None if not at the largest size.

        Between two sizes it is interpolated; 0 where they do at every size asked.
        """
        lost = self._lost
        if not len(lost) or lost[-1] > 0:
            return None
        if lost.max() <= 0:
            return 0.0
        at = int(np.flatnonzero(lost > 0)[-1])
        part = lost[at] / (lost[at] - lost[at + 1])
        low, high = self.tokens_per_rank[at : at + 2]
        return float(low + part * (high - low))

    @property
    def _lost(self) -> Floats:
        """Microseconds that redundant replicas, all of them active, cost at least at each batch size; none if none."""
        more = [point.everything for point in self.points[1:]]
        return np.min(more, axis=0) - self.points[0].everything if more else np.empty(0)

    @property
    def recommended(self) -> SlotTime:
        """The fewest slots whose time, summed over the batch sizes, is within 1 % of the least that was found."""
        totals = [float((point.active / self.points[0].active).sum()) for point in self.points]
        least = min(totals)
        return next(point for point, total in zip(self.points, totals, strict=True) if total <= least * (1 + WORTH))

    def describe(self) -> str:
        """Return a sentence that recommends a number of slots, and says where redundancy breaks even."""
        best, fewest = self.recommended, self.points[0]
        most = 1 - min(float((point.active / fewest.active).min()) for point in self.points)
        saved = 1 - float((best.active / fewest.active).min())
        bytes_ = "" if best.extra_bytes is None else f", {best.extra_bytes / 1e9:.2f} GB a rank"
        if best is fewest:
            mean = f" on average, {most:.1%} at most," if most >= WORTH else ""
            text = (
                f"{best.num_slots:,} slots, none redundant: more save less than {WORTH:.0%}{mean} at these batch sizes"
            )
        else:
            text = (
                f"{best.num_slots:,} slots, {best.num_redundant_experts:,} of them redundant{bytes_}: up to "
                f"{saved:.0%} of the layer less than {fewest.num_slots:,}, with those asleep that do not pay"
            )
        return f"{text}{self._where_it_breaks_even()}."

    def _where_it_breaks_even(self) -> str:
        lost, even = self._lost, self.break_even
        if not len(lost):
            return ""
        if even == 0:
            return "; redundant replicas that are all active save time at every size here"
        if even is None:
            only = "only cost time here" if lost.min() > 0 else "cost time at the largest size here"
            return f"; redundant replicas that are all active {only}"
        below = np.array(self.tokens_per_rank) < even
        some = "" if (lost[below] > 0).all() else "at some sizes "
        return (
            f"; all active, redundant replicas cost time {some}below about {even:.0f} tokens a rank, and save it above"
        )


def slot_times(
    problem: PlacementProblem,
    latency: LatencyModel,
    tokens_per_rank: Any,
    top_k: int,
    *,
    most_slots: int | None = None,
    bytes_per_expert: float | None = None,
    strategy: str = DEFAULT,
    seed: int = 0,
    backend: str = "auto",
    threads: int | None = None,
    **parameters: Any,
) -> SlotTimes:
    """Return what a layer takes with ever more slots, at some batch sizes, a mean over the layers that have tokens.

    Parameters
    ----------
    problem : PlacementProblem
        Its number of slots is not looked at.
    latency : LatencyModel
    tokens_per_rank : number or sequence of numbers
        Tokens of each rank in one step, before they are routed to ``top_k`` experts each.
    top_k : int
    most_slots : int or None, default None
        Do not try more slots in a layer. None tries up to three slots a rank more than the fewest.
    bytes_per_expert : float or None, default None
        Of one expert's weights in one layer: 44e6 for DeepSeek-V3 in fp8.
    strategy, seed, backend, threads, **parameters
        As in ``equipoise.solve``.

    Raises
    ------
    InvalidInputError
        If a number breaks its rule, or ``most_slots`` cannot hold every expert.

    Examples
    --------
    >>> from equipoise import Cluster
    >>> problem = PlacementProblem([[600, 200, 200, 200]], Cluster(num_ranks=2, slots_per_rank=2))
    >>> times = slot_times(problem, LatencyModel(20, 12, 4, 0.06), [4, 2000], top_k=1)
    >>> times.recommended.num_slots, times.points[0].num_slots
    (6, 4)
    """
    as_problem(problem)
    as_instance(latency, LatencyModel, "latency", "a LatencyModel, such as LatencyModel.preset('h200')")
    sizes = _sizes(tokens_per_rank)
    top_k = count(top_k, "top_k", most=problem.num_logical_experts)
    bytes_ = None if bytes_per_expert is None else finite(bytes_per_expert, "bytes_per_expert")
    how = How.of(strategy, seed=seed, backend=backend, threads=threads, **parameters)
    busy = np.flatnonzero(problem.load.sum(axis=1) > 0)  # dense layers, as some recorders write, are none to advise on
    if len(busy):
        problem = problem.of_layers(busy)
    ranks, experts = problem.cluster.num_ranks, problem.num_logical_experts
    fewest = math.ceil(experts / ranks)
    most = fewest + EXTRA_SIZES - 1 if most_slots is None else count(most_slots, "most_slots") // ranks
    if most < fewest:
        raise InvalidInputError(
            f"most_slots is {shown(most_slots)}, and {experts} logical experts on {ranks} ranks need at least "
            f"{fewest * ranks} slots. Allow at least so many."
        )
    points = []
    for slots in range(fewest, min(most, experts) + 1):
        cluster = replace(problem.cluster, slots_per_rank=slots)
        asked = replace(problem.in_tokens, cluster=cluster)
        points.append(_point(asked, latency, [size * ranks * top_k for size in sizes], how, (fewest, bytes_)))
    return SlotTimes(latency, sizes, tuple(points))


def _sizes(value: Any) -> tuple[float, ...]:
    try:
        given = as_items(value)
    except TypeError:
        given = (value,)
    sizes = sorted({finite(size, "tokens_per_rank") for size in given})
    if not sizes or sizes[0] <= 0:
        raise InvalidInputError(f"tokens_per_rank is {shown(value)}; it must be numbers above 0, such as [4, 64, 256].")
    return tuple(sizes)


def _point(
    problem: PlacementProblem,
    latency: LatencyModel,
    routed: Sequence[float],
    how: How,
    weights: tuple[int, float | None],
) -> SlotTime:
    fewest, bytes_per_expert = weights
    timed = [replace(problem, latency=latency, routed_per_step=size) for size in routed]
    times = [solve_in_time(each, how).time for each in timed]
    active = np.array([time.max_rank_time.mean() for time in times if time is not None])
    _, placement = how.place(problem)
    everything = np.array([rank_times(placement, latency, problem, size).max(axis=1).mean() for size in routed])
    more = problem.cluster.slots_per_rank - fewest
    extra = None if bytes_per_expert is None else more * bytes_per_expert * problem.num_layers
    return SlotTime(problem.cluster.num_slots, problem.num_redundant_experts, active, everything, extra)


def rank_times(placement: Any, latency: LatencyModel, problem: PlacementProblem, routed: float) -> Floats:
    """Return the expected microseconds of each rank [layers, ranks] where every replica is active."""
    each = problem.mean_tokens(routed) / np.maximum(placement.replica_count, 1)
    tokens = np.take_along_axis(each, placement.physical_to_logical.astype(np.int64), axis=1)
    return latency.expected_rank_time(tokens.reshape(len(tokens), placement.num_ranks, -1))


def mean_busiest(times: Floats, problem: PlacementProblem) -> float:
    """Return what the busiest rank takes, of ``times`` [layers, ranks], a mean over the layers that have tokens."""
    busy = problem.load.any(axis=1) | ~problem.load.any()
    return float(times.max(axis=1)[busy].mean())
