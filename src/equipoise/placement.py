"""Where the experts live: one array, and everything else derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count
from equipoise.arrays import as_load, as_numpy, check_table
from equipoise.errors import IndivisibleError, InvalidPlacementError, shown
from equipoise.limits import MOST_SLOTS
from equipoise.problem import Cluster

__all__ = ["Placement"]

Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Placement:
    """Which logical expert each slot of each layer holds.

    Parameters
    ----------
    physical_to_logical : int array, shape (num_layers, num_slots)
        Logical expert in each slot, -1 for an empty slot. Kept as a read-only int32 copy.
    num_ranks : int
        Rank ``r`` owns slots ``r * S`` to ``(r + 1) * S - 1``, with ``S = num_slots / num_ranks``.
    num_logical_experts : int

    Raises
    ------
    InvalidPlacementError
        If the array has another shape, or holds a number that is neither -1 nor an expert id.
    IndivisibleError
        If the ranks do not divide the slots.

    Notes
    -----
    A placement in force may have lost experts with a rank, so this class does not insist that each
    expert has a slot: ``equipoise.certificate.check_placement`` does.

    Examples
    --------
    >>> placement = Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    >>> placement.replica_count.tolist()
    [[2, 1, 1]]
    >>> placement.logical_to_physical.tolist()
    [[[0, 2], [1, -1], [3, -1]]]
    >>> placement.rank_load([[4.0, 1.0, 3.0]]).tolist()
    [[3.0, 5.0]]
    """

    physical_to_logical: Ints
    num_ranks: int
    num_logical_experts: int

    if TYPE_CHECKING:  # any array goes in, int32 comes out

        def __init__(self, physical_to_logical: Any, num_ranks: int, num_logical_experts: int) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_ranks", count(self.num_ranks, "num_ranks"))
        experts = count(self.num_logical_experts, "num_logical_experts", most=MOST_SLOTS)
        object.__setattr__(self, "num_logical_experts", experts)
        array = as_numpy(self.physical_to_logical, "physical_to_logical")
        if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iu":
            raise InvalidPlacementError(
                f"physical_to_logical has shape {array.shape} and type {array.dtype}; "
                "it must hold integers in the shape (layers, slots)."
            )
        check_table(len(array), max(array.shape[1], experts), "the placement")
        if array.shape[1] % self.num_ranks:
            raise IndivisibleError(
                f"{array.shape[1]} slots do not spread evenly over {shown(self.num_ranks)} ranks. "
                f"Use a number of ranks that divides {array.shape[1]}."
            )
        wrong = (array < -1) | (array >= experts)
        if wrong.any():
            layer, slot = (int(i) for i in np.argwhere(wrong)[0])
            raise InvalidPlacementError(
                f"physical_to_logical is {array[layer, slot]} at layer {layer}, slot {slot}; "
                f"it must be an expert from 0 to {experts - 1}, or -1 for an empty slot."
            )
        array = np.array(array, dtype=np.int32, order="C")
        array.setflags(write=False)
        object.__setattr__(self, "physical_to_logical", array)

    @classmethod
    def in_order(cls, num_layers: int, cluster: Cluster, num_logical_experts: int) -> Placement:
        """Return the placement that engines start from: experts in order, then again from expert 0.

        >>> Placement.in_order(1, Cluster(num_ranks=2, slots_per_rank=2), 3).physical_to_logical.tolist()
        [[0, 1, 2, 0]]
        """
        cluster = as_instance(cluster, Cluster, "cluster", "a Cluster(num_ranks=..., slots_per_rank=...)")
        layers = count(num_layers, "num_layers")
        check_table(layers, cluster.num_slots, "the placement")
        row = np.arange(cluster.num_slots) % count(num_logical_experts, "num_logical_experts", most=MOST_SLOTS)
        return cls(np.tile(row, (layers, 1)), cluster.num_ranks, num_logical_experts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Placement):
            return NotImplemented
        return (
            self.num_ranks == other.num_ranks
            and self.num_logical_experts == other.num_logical_experts
            and np.array_equal(self.physical_to_logical, other.physical_to_logical)
        )

    __hash__ = None  # type: ignore[assignment]  # holds an array; nothing needs it as a key

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.physical_to_logical.shape[0])

    @property
    def num_slots(self) -> int:
        """Slots in one layer, counted over all ranks."""
        return int(self.physical_to_logical.shape[1])

    @property
    def slots_per_rank(self) -> int:
        """Slots that one rank has in each layer."""
        return self.num_slots // self.num_ranks

    @cached_property
    def replica_count(self) -> Ints:
        """Slots that hold each expert: int32, shape (num_layers, num_logical_experts)."""
        width = self.num_logical_experts + 1  # the first column is that of empty slots
        cell = np.arange(self.num_layers)[:, None] * width + (self.physical_to_logical + 1)
        held = np.bincount(cell.reshape(-1), minlength=self.num_layers * width).reshape(-1, width)
        return np.ascontiguousarray(held[:, 1:], dtype=np.int32)

    @cached_property
    def logical_to_physical(self) -> Ints:
        """Slots that hold each expert, ascending, padded with -1.

        int32, shape (num_layers, num_logical_experts, largest replica count).
        """
        from equipoise.kernels.maps.numba import invert

        return invert(self.physical_to_logical, self.num_logical_experts)[0]

    @cached_property
    def num_duplicates(self) -> NDArray[np.int64]:
        """Slots of each layer whose rank already holds the same expert in a lower slot."""
        from equipoise.kernels.maps.numba import count_duplicates

        return count_duplicates(self.physical_to_logical, self.num_logical_experts, self.num_ranks)

    def rank_load(self, load: Any) -> NDArray[np.float64]:
        """Return what each rank carries: float64, shape (num_layers, num_ranks).

        Every replica of an expert carries load / replica count. An expert without a slot carries
        nothing anywhere, so check completeness before trusting the sum.
        """
        load = as_load(load)
        if load.shape != (self.num_layers, self.num_logical_experts):
            raise InvalidPlacementError(
                f"load has shape {load.shape}, the placement is for {self.num_layers} layers of "
                f"{self.num_logical_experts} experts; pass the load of the same model."
            )
        per_replica = np.pad(load / np.maximum(self.replica_count, 1), ((0, 0), (0, 1)))  # column -1: empty slot
        slot_load = np.take_along_axis(per_replica, self.physical_to_logical.astype(np.int64) % (load.shape[1] + 1), 1)
        by_rank = slot_load.reshape(self.num_layers, self.num_ranks, self.slots_per_rank)
        rank_load: NDArray[np.float64] = by_rank.sum(axis=2)
        return rank_load
