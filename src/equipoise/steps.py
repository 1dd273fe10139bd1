"""What a placement made for the sum of many steps is worth step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count, real
from equipoise.arrays import as_windows
from equipoise.dispatch.shares import Shares
from equipoise.errors import InvalidInputError, shown
from equipoise.placement import Placement

__all__ = ["Steps", "realised_balancedness"]

AT_ONCE = 1 << 20  # loads of slots


@dataclass(frozen=True)
class Steps:
    """How many steps a load is the sum of, and what came of a placement in them.

    Attributes
    ----------
    number : int
        Steps, or windows, that were summed: at least two.
    mean_balancedness : float
        Mean / max rank load of each layer in each step, averaged over both; see ``realised_balancedness``.
    """

    number: int
    mean_balancedness: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", count(self.number, "the number of steps", least=2, most=2**63 - 1))
        rule = "a number above 0 and at most 1"
        value = real(self.mean_balancedness, "mean_balancedness", rule)
        if not 0 < value <= 1:
            raise InvalidInputError(f"mean_balancedness is {shown(self.mean_balancedness)}; it must be {rule}.")
        object.__setattr__(self, "mean_balancedness", value)

    @classmethod
    def of(
        cls, placement: Placement, windows: NDArray[np.float64] | None, shares: Shares | None = None
    ) -> Steps | None:
        """Return what came of ``placement`` in each of several windows, None where there are not several."""
        if windows is None or len(windows) < 2:
            return None
        return cls(len(windows), min(float(realised_balancedness(placement, windows, shares).mean()), 1.0))

    def __str__(self) -> str:
        return f"{self.number} steps summed; realised step by step: mean {self.mean_balancedness:.4f}"


def realised_balancedness(placement: Placement, windows: object, shares: Shares | None = None) -> NDArray[np.float64]:
    """Return the balancedness of every step: float64, shape (num_steps, num_layers), in (0, 1].

    Parameters
    ----------
    placement : Placement
    windows : array, shape (num_steps, num_layers, num_logical_experts), or LoadStatistics
        Tokens routed to each logical expert in each step.
    shares : Shares or None, default None
        What part of its expert's tokens each slot gets; None is even parts.

    Raises
    ------
    InvalidInputError
        If the load is none, or of other layers or experts than the placement.

    Notes
    -----
    The tokens of an expert are split as the shares say, as engines do over many of them; in a small step they
    come in whole tokens, and the balance is worse by that. A layer without tokens is perfectly balanced. An expert
    without a slot carries nothing, and ranks that hold nothing are lost: the mean is over the others.

    Examples
    --------
    >>> placement = Placement([[0, 1]], num_ranks=2, num_logical_experts=2)
    >>> realised_balancedness(placement, [[[3, 1]], [[1, 3]], [[2, 2]]]).round(3).ravel().tolist()
    [0.667, 0.667, 1.0]
    """
    as_instance(placement, Placement, "placement", "a Placement, such as plan.placement")
    if shares is not None and as_instance(shares, Shares, "shares", "Shares, or None").placement != placement:
        raise InvalidInputError("shares are of another placement; pass those of this one's slots.")
    tokens = as_windows(windows, axis="step")
    layers, experts = placement.num_layers, placement.num_logical_experts
    if tokens.shape[1:] != (layers, experts):
        raise InvalidInputError(
            f"load has shape {tokens.shape}, the placement is for {layers} layers of {experts} experts; pass the load "
            "of the same model."
        )
    found = np.ones((len(tokens), layers))
    num_ranks = int((placement.physical_to_logical.reshape(layers, placement.num_ranks, -1) >= 0).any((0, 2)).sum())
    at_once = max(1, AT_ONCE // placement.num_slots)
    for layer, slots in enumerate(placement.physical_to_logical):
        share = np.where(slots >= 0, 1.0 / np.maximum(placement.replica_count[layer], 1)[slots], 0.0)
        if shares is not None:
            share = shares.values[layer]
        for first in range(0, len(tokens), at_once):
            block = tokens[first : first + at_once, layer]
            loads = (block[:, slots] * share).reshape(len(block), placement.num_ranks, -1).sum(axis=2)
            most, mean = loads.max(axis=1), loads.sum(axis=1) / num_ranks
            found[first : first + at_once, layer] = np.divide(mean, most, out=np.ones_like(most), where=most > 0)
    return np.minimum(found, 1.0)
