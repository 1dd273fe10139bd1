"""What an engine counts in one step, checked, as tokens of each logical expert."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import flag
from equipoise.arrays import as_numpy
from equipoise.errors import InvalidInputError
from equipoise.placement import Placement

__all__ = ["as_expert_counts"]

Floats = NDArray[np.float64]
LARGEST = float(2**53)  # tokens: beyond it float64 no longer counts one by one, and far beyond it sums overflow


def as_expert_counts(counts: Any, placement: Placement, physical: bool) -> Floats:
    """Return a copy of the counts of one step as float64 of shape (num_layers, num_logical_experts).

    Parameters
    ----------
    counts : array, shape (num_layers, num_logical_experts), or (num_layers, num_slots) if ``physical``
    placement : Placement
        Which expert each slot holds; what empty slots counted is left out.
    physical : bool

    Raises
    ------
    InvalidInputError
        If the shape is another, or a count is not finite, negative or above 2**53; the message names the first such.
    """
    flag(physical, "physical")
    array = np.asarray(as_numpy(counts, "counts"), dtype=np.float64)
    layers, experts = placement.num_layers, placement.num_logical_experts
    shape = (layers, placement.num_slots if physical else experts)
    if array.shape != shape:
        raise InvalidInputError(f"counts has shape {array.shape}; it must be {shape}, one row for each layer.")
    if not (array.min() >= 0 and array.max() <= LARGEST):  # a NaN is neither
        layer, at = (int(i) for i in np.argwhere(~((array >= 0) & (array <= LARGEST)))[0])
        raise InvalidInputError(
            f"counts is {array[layer, at]} at layer {layer}, {'slot' if physical else 'expert'} {at}; counts must be "
            "finite, not negative and at most 2**53. Nothing was recorded."
        )
    if not physical:
        return np.array(array)
    by_expert = np.zeros((layers, experts + 1))
    rows = np.repeat(np.arange(layers), shape[1])
    np.add.at(by_expert, (rows, placement.physical_to_logical.ravel()), array.ravel())
    logical: Floats = by_expert[:, :experts].copy()  # the last column is that of empty slots
    return logical
