"""The expected time of the busiest rank of a plan, and a proved bound on it, for each batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, finite
from equipoise.arrays import as_numpy
from equipoise.checker import check_time, recount_time
from equipoise.dispatch.shares import Shares
from equipoise.errors import InvalidInputError, shown
from equipoise.latency import LatencyModel
from equipoise.placement import Placement
from equipoise.problem import PlacementProblem, as_problem

__all__ = ["TimeCertificate", "certify_checked", "certify_time"]

Floats = NDArray[np.float64]
ROUNDING = 1e-9  # relative; what the expected time of a slot may be off by


@dataclass(frozen=True, eq=False)
class TimeCertificate:
    """What the busiest rank takes, and must take in any plan of the same problem, in expectation.

    Attributes
    ----------
    latency : LatencyModel
    routed_per_step : tuple of float
        Batch sizes, ascending: routed tokens of all ranks in one step.
    shares : tuple of Shares
        Those of each batch size; a replica that is active in a smaller batch is active in every larger one.
    max_rank_time : float64 array, shape (num_batch_sizes, num_layers)
        Microseconds that the busiest rank is expected to take.
    lower_bound : float64 array, shape (num_batch_sizes, num_layers)
        Microseconds that it is expected to take at least, whatever the counts, the placement and the active replicas,
        each with an even share. Never above ``max_rank_time``.

    Raises
    ------
    InvalidInputError
        If the shapes do not fit, a number is negative or not finite, or a bound exceeds what it bounds.
    """

    latency: LatencyModel
    routed_per_step: tuple[float, ...]
    shares: tuple[Shares, ...]
    max_rank_time: Floats
    lower_bound: Floats

    def __post_init__(self) -> None:
        as_instance(self.latency, LatencyModel, "latency", "a LatencyModel")
        sizes = self.routed_per_step
        if not isinstance(sizes, tuple) or not sizes or list(sizes) != sorted(set(sizes)):
            raise InvalidInputError(f"routed_per_step is {shown(sizes)}; it must be an ascending tuple of batch sizes.")
        for size in sizes:
            finite(size, "routed_per_step")
        if not isinstance(self.shares, tuple) or not all(isinstance(each, Shares) for each in self.shares):
            raise InvalidInputError(f"shares is {shown(self.shares)}; it must be a tuple of Shares, one a batch size.")
        for name in ("max_rank_time", "lower_bound"):
            array = np.array(as_numpy(getattr(self, name), name), dtype=np.float64)
            if array.ndim != 2 or len(array) != len(sizes) or not (np.isfinite(array) & (array >= 0)).all():
                raise InvalidInputError(
                    f"{name} is {shown(array)}; it must hold microseconds, finite and not negative, for each of "
                    f"{len(sizes)} batch sizes and each layer."
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if len(self.shares) != len(sizes) or self.lower_bound.shape != self.max_rank_time.shape:
            raise InvalidInputError(
                "shares, lower_bound and max_rank_time are of different sizes; pass those of one plan."
            )
        if any(len(each.values) != self.max_rank_time.shape[1] for each in self.shares):
            raise InvalidInputError("shares and max_rank_time are of different layers; pass those of one plan.")
        if (self.lower_bound > self.max_rank_time * (1 + ROUNDING)).any():
            raise InvalidInputError(
                "a lower_bound lies above its max_rank_time; a bound cannot exceed what is achieved."
            )

    @property
    def gap(self) -> Floats:
        """Max rank time / lower bound - 1 for each batch size and layer; 0 is proved optimal."""
        nothing = np.where(self.max_rank_time > 0, np.inf, 1.0)
        return np.divide(self.max_rank_time, self.lower_bound, out=nothing, where=self.lower_bound > 0) - 1.0

    @property
    def mean_gap(self) -> Floats:
        """Gap averaged over the layers, for each batch size."""
        return np.asarray(self.gap.mean(axis=1))

    @property
    def mean_max_rank_time(self) -> Floats:
        """Max rank time averaged over the layers that have tokens, for each batch size: dense layers take none."""
        return np.asarray(self.max_rank_time[:, self._busy].mean(axis=1))

    @property
    def _busy(self) -> NDArray[np.bool_]:
        """The layers that take more than what is fixed; all, if none does."""
        busy = np.asarray((self.max_rank_time > self.latency.fixed).any(axis=0))
        return busy if busy.any() else ~busy

    @property
    def max_gap(self) -> float:
        """The largest gap of all batch sizes and layers."""
        return float(self.gap.max())

    def nearest(self, routed_per_step: float) -> int:
        """Return which batch size is nearest, by ratio; the smaller one of two that are equally near."""
        asked = finite(routed_per_step, "routed_per_step")
        if asked <= 0:
            raise InvalidInputError(f"routed_per_step is {shown(asked)}; it must be above 0.")
        return int(np.argmin([abs(math.log(size / asked)) for size in self.routed_per_step]))

    def describe(self) -> list[str]:
        """Return a line for each batch size: what its busiest rank takes, the gap, and how many replicas sleep.

        Means are over the layers that have tokens.
        """
        lines, times, gaps, busy = [], self.mean_max_rank_time, self.gap, self._busy
        for at, size in enumerate(self.routed_per_step):
            dormant = float(self.shares[at].num_dormant[busy].mean())
            lines.append(
                f"{times[at]:.1f} us a layer at {size:,.0f} routed tokens, gap to bound mean "
                f"{gaps[at, busy].mean():.2%}, worst {gaps[at].max():.2%}; {dormant:.1f} replicas dormant"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plan file keeps them."""
        return {
            "latency": self.latency.to_dict(),
            "routed_per_step": list(self.routed_per_step),
            "shares": [each.values.tolist() for each in self.shares],
            "max_rank_time": self.max_rank_time.tolist(),
            "lower_bound": self.lower_bound.tolist(),
        }


def certify_time(problem: PlacementProblem, placement: Placement, shares: Sequence[Shares]) -> TimeCertificate:
    """Recount the time of ``placement`` with ``shares``, one for each batch size of ``problem``, and bound it.

    Raises
    ------
    InvalidPlacementError
        If placement or shares break a rule; see ``equipoise.checker.check_time``.
    InvalidInputError
        If the problem has no latency model, or shares are not one for each batch size.

    Examples
    --------
    >>> from equipoise import Cluster, LatencyModel
    >>> model = LatencyModel(fixed=10, floor=5, base=2, per_token=0.1)
    >>> problem = PlacementProblem([[4, 4]], Cluster(2, 1), latency=model, routed_per_step=1000)
    >>> placement = Placement([[0, 1]], 2, 2)
    >>> certificate = certify_time(problem, placement, [Shares.even(placement)])
    >>> certificate.max_rank_time.round(3).tolist(), certificate.max_gap < 1e-6
    ([[62.0]], True)
    """
    from equipoise.timing.plan import InTime

    as_problem(problem)
    sizes = problem.batch_sizes
    if problem.latency is None:
        raise InvalidInputError("problem has no latency model; pass PlacementProblem(..., latency=..., ...).")
    given = tuple(shares) if isinstance(shares, Sequence) else ()
    if len(given) != len(sizes):
        raise InvalidInputError(f"shares is {shown(shares)}; give one Shares for each of {len(sizes)} batch sizes.")
    for each, size in zip(given, sizes, strict=True):
        check_time(problem, placement, each, size)
    return certify_checked(problem, placement, given, InTime(problem, 0.0, None).bound)


def certify_checked(
    problem: PlacementProblem, placement: Placement, shares: tuple[Shares, ...], bound: Callable[[Floats, int], Floats]
) -> TimeCertificate:
    """Return what ``certify_time`` does, of a placement and shares that have been checked; see ``InTime.bound``."""
    assert problem.latency is not None
    sizes = problem.batch_sizes
    times = [recount_time(problem, placement, shares[at], size).max(axis=1) for at, size in enumerate(sizes)]
    bounds = [bound(time, at) for at, time in enumerate(times)]
    return TimeCertificate(problem.latency, sizes, shares, np.array(times), np.array(bounds))
