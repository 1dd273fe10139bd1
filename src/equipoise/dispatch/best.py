"""The best shares for a placement, and the proof that no others leave the busiest rank less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance
from equipoise.arrays import as_load
from equipoise.dispatch.shares import Shares
from equipoise.errors import InvalidInputError
from equipoise.fixed_point import to_fixed_point
from equipoise.metrics import as_layers
from equipoise.placement import Placement

__all__ = ["GAP", "SharesCertificate", "as_load_of", "certify_shares", "share"]

Floats = NDArray[np.float64]
GAP = 1e-6  # by which the busiest rank may exceed what is proved


def share(placement: Placement, load: Any) -> Shares:
    """Return the shares that leave the busiest rank of each layer least to carry.

    Parameters
    ----------
    placement : Placement
        Slots may be empty, and experts without a slot; such an expert carries nothing anywhere.
    load : array, shape (num_layers, num_logical_experts)
        As ``PlacementProblem`` takes it, or a forecast: what has ``expected``.

    Returns
    -------
    Shares
        Within 1e-6 of the least that the busiest rank of each layer can carry on this placement; ``certify_shares``
        proves it. Never above even shares, which stay where no others are better. The same for the same arguments, and
        for loads times a constant. Experts without tokens are shared evenly.

    Raises
    ------
    InvalidInputError
        If ``load`` is no load of this placement's layers and experts.

    Notes
    -----
    Which of several best answers comes back is not promised. Method: water-filling, that is block-coordinate descent
    on the sum of the squared rank loads, then shortest augmenting paths; see ``equipoise.dispatch.waterfill``. In the
    literature this is the fractional case of restricted assignment, whose optimum a maximum flow finds.

    Examples
    --------
    >>> placement = Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    >>> share(placement, [[4.0, 2.0, 0.0]]).values.tolist()
    [[0.25, 1.0, 0.75, 1.0]]
    """
    placement, load = as_load_of(placement, load)
    return Shares(_pour(placement, load)[0], placement)


@dataclass(frozen=True, eq=False)
class SharesCertificate:
    """What the busiest rank carries with some shares, and what it must carry on that placement with any.

    Attributes
    ----------
    lower_bound : float64 array, shape (num_layers,)
        Tokens per window: the load of the experts that live only on ``tight_ranks``, divided by their number.
    max_rank_load : float64 array, shape (num_layers,)
        Tokens per window.
    tight_ranks : bool array, shape (num_layers, num_ranks)
        The argument: with the best shares, ranks that cannot give anything away.

    Raises
    ------
    InvalidInputError
        If a number is negative or not finite, or there is not one for each layer.
    """

    lower_bound: Floats
    max_rank_load: Floats
    tight_ranks: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for name in ("lower_bound", "max_rank_load"):
            object.__setattr__(self, name, as_layers(getattr(self, name), name))
        tight = as_instance(self.tight_ranks, np.ndarray, "tight_ranks", "an array of truth values")
        if (
            tight.dtype != np.bool_
            or tight.ndim != 2
            or not len(self.lower_bound) == len(self.max_rank_load) == len(tight)
        ):
            raise InvalidInputError("lower_bound, max_rank_load and tight_ranks are not of the same layers.")

    @property
    def gap(self) -> Floats:
        """Max rank load / lower bound - 1 of each layer; infinite where nothing is proved."""
        nothing = np.where(self.max_rank_load > 0, np.inf, 1.0)
        return np.divide(self.max_rank_load, self.lower_bound, out=nothing, where=self.lower_bound > 0) - 1.0


def certify_shares(shares: Shares, load: Any) -> SharesCertificate:
    """Return how far ``shares`` are from the best ones of their placement for ``load``.

    Whatever the set of ranks that is found, the bound is recounted from the placement and holds.

    >>> placement = Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    >>> proof = certify_shares(Shares.even(placement), [[4.0, 2.0, 0.0]])
    >>> proof.lower_bound.tolist(), proof.max_rank_load.tolist()
    ([3.0], [4.0])
    """
    as_instance(shares, Shares, "shares", "Shares, such as share(placement, load) returns")
    placement, load = as_load_of(shares.placement, load)
    _, tight = _pour(placement, load)
    outside = np.repeat(~tight, placement.slots_per_rank, axis=1) & (placement.physical_to_logical >= 0)
    width = placement.num_logical_experts + 1
    cell = np.arange(placement.num_layers)[:, None] * width + placement.physical_to_logical + 1
    elsewhere = np.bincount(cell[outside], minlength=placement.num_layers * width).reshape(-1, width)[:, 1:]
    inside = (elsewhere == 0) & (placement.replica_count > 0)
    lower = np.where(inside, load, 0.0).sum(axis=1) / tight.sum(axis=1)
    largest = shares.rank_load(load).max(axis=1)
    return SharesCertificate(np.minimum(lower, largest), largest, tight)  # but for rounding, it is no more


def as_load_of(placement: Any, load: Any) -> tuple[Placement, Floats]:
    """Return a placement and a load of the same model, or what a forecast expects, checked."""
    as_instance(placement, Placement, "placement", "a Placement, such as plan.placement")
    load = as_load(getattr(load, "expected", load))
    if load.shape != (placement.num_layers, placement.num_logical_experts):
        raise InvalidInputError(
            f"load has shape {load.shape}, the placement is for {placement.num_layers} layers of "
            f"{placement.num_logical_experts} experts; pass the load of the same model."
        )
    return placement, load


def _pour(placement: Placement, load: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    from equipoise.dispatch.waterfill.numba import pour

    carried = np.where(placement.replica_count > 0, load, 0.0)
    whole = to_fixed_point(carried, placement.num_ranks).astype(np.float64)  # the same for loads times a constant
    return pour(placement.physical_to_logical, whole, placement.num_ranks, GAP)
