"""What part of its expert's tokens each slot gets: beside the placement, and changed without moving a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance
from equipoise.arrays import as_load, as_numpy
from equipoise.errors import InvalidInputError
from equipoise.placement import Placement

__all__ = ["Shares"]

Floats = NDArray[np.float64]
ROUNDING = 1e-6  # by which the shares of an expert may miss 1, as those of float32 tables do


@dataclass(frozen=True, eq=False)
class Shares:
    """For each slot the part of its expert's tokens that it gets; 0 is a dormant replica, or an empty slot.

    ``np.asarray(shares)`` is ``shares.values``.

    Parameters
    ----------
    values : array, shape (num_layers, num_slots)
        From 0 to 1. The shares of the slots of an expert sum to 1. Kept as a read-only float64 copy.
    placement : Placement
        Whose slots they are.

    Raises
    ------
    InvalidInputError
        If a share is negative, not finite, or given to an empty slot, or the shares of an expert do not sum to 1.

    Examples
    --------
    >>> placement = Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    >>> shares = Shares([[0.25, 1, 0.75, 1]], placement)
    >>> shares.rank_load([[4.0, 2.0, 0.0]]).tolist()
    [[3.0, 3.0]]
    >>> Shares.even(placement).values.tolist()
    [[0.5, 1.0, 0.5, 1.0]]
    """

    values: Floats
    placement: Placement

    if TYPE_CHECKING:  # any array goes in, float64 comes out

        def __init__(self, values: Any, placement: Placement) -> None: ...

    def __post_init__(self) -> None:
        placement = as_instance(self.placement, Placement, "placement", "a Placement, such as plan.placement")
        given = as_numpy(self.values, "shares")
        table = placement.physical_to_logical
        if given.shape != table.shape:
            raise InvalidInputError(
                f"shares has shape {given.shape}; it must hold one number for each of {table.shape[0]} layers of "
                f"{table.shape[1]} slots."
            )
        values = np.array(given, dtype=np.float64, order="C")
        wrong = ~(np.isfinite(values) & (values >= 0)) | ((table < 0) & (values != 0))
        if wrong.any():
            layer, slot = (int(i) for i in np.argwhere(wrong)[0])
            rule = "an empty slot gets none" if table[layer, slot] < 0 else "a share is a number from 0 to 1"
            raise InvalidInputError(f"shares is {values[layer, slot]} at layer {layer}, slot {slot}; {rule}.")
        given_out = _of_experts(values, placement)
        missed = (np.abs(given_out - 1) > ROUNDING) & (placement.replica_count > 0)
        if missed.any():
            layer, expert = (int(i) for i in np.argwhere(missed)[0])
            total = given_out[layer, expert]
            raise InvalidInputError(f"shares of expert {expert} in layer {layer} sum to {total}; divide them by that.")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    @classmethod
    def even(cls, placement: Placement) -> Shares:
        """Return the shares by which every replica of an expert gets as much as the others."""
        as_instance(placement, Placement, "placement", "a Placement, such as plan.placement")
        return cls(_at_slots(1.0 / np.maximum(placement.replica_count, 1), placement), placement)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype) if copy or dtype is not None else self.values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Shares):
            return NotImplemented
        return self.placement == other.placement and np.array_equal(self.values, other.values)

    __hash__ = None  # type: ignore[assignment]  # holds an array; nothing needs it as a key

    @property
    def is_even(self) -> bool:
        """Whether all replicas of each expert get the same part."""
        return bool(np.allclose(self.values, Shares.even(self.placement).values, rtol=0, atol=1e-9))

    @property
    def num_dormant(self) -> NDArray[np.int64]:
        """Slots of each layer that hold an expert and get none of its tokens."""
        dormant = (self.values == 0) & (self.placement.physical_to_logical >= 0)
        return np.asarray(dormant.sum(axis=1, dtype=np.int64))

    def rank_load(self, load: Any) -> Floats:
        """Return what each rank carries: float64, shape (num_layers, num_ranks), in the unit of ``load``.

        Raises
        ------
        InvalidInputError
            If ``load`` is none of this placement's layers and experts.
        """
        load, placement = as_load(load), self.placement
        if load.shape != (placement.num_layers, placement.num_logical_experts):
            raise InvalidInputError(
                f"load has shape {load.shape}, the shares are for {placement.num_layers} layers of "
                f"{placement.num_logical_experts} experts; pass the load of the same model."
            )
        slot_load = _at_slots(load, placement) * self.values
        rank_load: Floats = slot_load.reshape(placement.num_layers, placement.num_ranks, -1).sum(axis=2)
        return rank_load


def _at_slots(of_experts: Floats, placement: Placement) -> Floats:
    """Return what there is of the expert of each slot [layers, slots]; 0 for empty slots."""
    padded = np.pad(of_experts, ((0, 0), (0, 1)))  # column -1: empty slot
    found: Floats = np.take_along_axis(padded, placement.physical_to_logical.astype(np.int64), axis=1)
    return found


def _of_experts(of_slots: Floats, placement: Placement) -> Floats:
    """Return what there is of the slots of each expert together [layers, experts]."""
    width = placement.num_logical_experts + 1  # the first column is that of empty slots
    cell = np.arange(placement.num_layers)[:, None] * width + (placement.physical_to_logical + 1)
    summed: NDArray[Any] = np.bincount(cell.reshape(-1), of_slots.reshape(-1), minlength=placement.num_layers * width)
    return np.asarray(summed.reshape(-1, width)[:, 1:], dtype=np.float64)
