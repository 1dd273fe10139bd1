"""A placement as engines keep it in files: with the model's own layer ids, and sometimes without ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count, flag
from equipoise.arrays import as_numpy, check_table
from equipoise.dispatch import Shares
from equipoise.errors import InvalidInputError, shown
from equipoise.load import LoadStatistics
from equipoise.placement import Placement
from equipoise.plan import Plan

__all__ = ["LayeredPlacement", "fill_layers", "refuse_duplicates", "shifted"]


MOST_DRAFT_LAYERS = 64


@dataclass(frozen=True, eq=False)
class LayeredPlacement:
    """Which logical expert each slot of each MoE layer holds, layers named by the model's ids.

    Parameters
    ----------
    physical_to_logical : int array, shape (num_layers, num_slots)
        Every slot holds an expert and every expert from 0 to the largest has a slot. Kept as read-only int32.
    layer_ids : tuple of int
        The model's id of each row, ascending.
    num_ranks : int or None
        None where the file does not say.
    source : str
        Where it came from, for people.
    may_be_empty : bool, default False
        Whether slots may be empty (-1), as those of lost ranks are.
    shares : float array, shape (num_layers, num_slots), or None
        What part of its expert's tokens each slot gets; None is even parts.

    Raises
    ------
    InvalidInputError
        If a rule is broken. The message names the source, the layer and the slot.
    """

    physical_to_logical: NDArray[np.int32]
    layer_ids: tuple[int, ...]
    num_ranks: int | None = None
    source: str = "memory"
    may_be_empty: bool = False
    shares: NDArray[np.float64] | None = None

    if TYPE_CHECKING:  # any array goes in, int32 comes out

        def __init__(
            self,
            physical_to_logical: Any,
            layer_ids: Any,
            num_ranks: int | None = None,
            source: str = "memory",
            may_be_empty: bool = False,
            shares: Any = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        as_instance(self.source, str, "source", "a text that says where the placement came from")
        table = as_numpy(self.physical_to_logical, f"{self.source}: the placement")
        if table.ndim != 2 or table.size == 0 or table.dtype.kind not in "iu":
            raise InvalidInputError(
                f"{self.source}: the placement has shape {table.shape} and type {table.dtype}; it must hold integers "
                "in the shape (layers, slots)."
            )
        check_table(len(table), table.shape[1], self.source)
        # LoadStatistics knows the rules of layer ids; they are the same here.
        ids = LoadStatistics(np.zeros((len(table), 1)), layer_ids=self.layer_ids).layer_ids
        least = -1 if flag(self.may_be_empty, "may_be_empty") else 0
        if table.min() < least or table.max() < 0:
            layer, slot = (int(i) for i in np.argwhere(table < least)[0]) if table.max() >= 0 else (0, 0)
            raise InvalidInputError(
                f"{self.source}: layer {ids[layer]}, slot {slot} holds {int(table[layer, slot])}; every slot must hold "
                "an expert."
            )
        experts = int(table.max()) + 1
        # Of one expert more than there are slots, every layer lacks one: of more it need not be asked.
        held = np.zeros((len(table), min(experts, table.shape[1] + 1)), dtype=np.bool_)
        for layer, row in enumerate(table):
            held[layer, row[(row >= 0) & (row < held.shape[1])].astype(np.int64)] = True
        if not held.all():
            layer, expert = (int(i) for i in np.argwhere(~held)[0])
            raise InvalidInputError(
                f"{self.source}: layer {ids[layer]} has no slot for expert {expert}, and there is an expert "
                f"{experts - 1}; every layer needs all {experts} experts."
            )
        if self.num_ranks is not None:
            Placement(table, self.num_ranks, experts)  # the ranks divide the slots, or this says so
        table = np.array(table, dtype=np.int32, order="C")
        table.setflags(write=False)
        if self.shares is not None:
            object.__setattr__(self, "shares", Shares(self.shares, Placement(table, 1, experts)).values)
        object.__setattr__(self, "physical_to_logical", table)
        object.__setattr__(self, "layer_ids", ids)

    @classmethod
    def of(cls, placement: Placement, layer_ids: Any = None, source: str = "memory") -> LayeredPlacement:
        """Name the layers of ``placement``; without names they count from 0."""
        as_instance(placement, Placement, "placement", "a Placement, such as plan.placement")
        ids = tuple(range(placement.num_layers)) if layer_ids is None else layer_ids
        empty = bool((placement.physical_to_logical < 0).any())
        return cls(placement.physical_to_logical, ids, placement.num_ranks, source, empty)

    @classmethod
    def of_plan(cls, plan: Plan, source: str = "memory") -> LayeredPlacement:
        """Return the placement of a plan, with its layer ids and shares."""
        as_instance(plan, Plan, "plan", "a Plan, such as solve returns")
        shares = None if plan.shares is None else plan.shares.values
        return replace(cls.of(plan.placement, plan.layer_ids, source), shares=shares)

    @property
    def num_slots(self) -> int:
        """Slots in one layer, counted over all ranks."""
        return int(self.physical_to_logical.shape[1])

    @property
    def empty_ranks(self) -> tuple[int, ...]:
        """Ranks whose slots are all empty: they are lost."""
        if self.num_ranks is None:
            return ()
        most = self.by_rank("the format").max(axis=(0, 2))
        return tuple(int(rank) for rank in np.flatnonzero(most < 0))

    @property
    def num_logical_experts(self) -> int:
        """Experts that the router can choose in a layer."""
        return int(self.physical_to_logical.max()) + 1

    def with_ranks(self, num_ranks: int | None) -> LayeredPlacement:
        """Return the same placement on ``num_ranks`` ranks; None keeps what the file said."""
        if num_ranks is None:
            return self
        num_ranks = count(num_ranks, "num_ranks")
        if self.num_ranks not in (None, num_ranks):
            raise InvalidInputError(
                f"{self.source} is for {self.num_ranks} ranks, not {shown(num_ranks)}; leave the ranks out."
            )
        return replace(self, num_ranks=num_ranks)

    def select(self, keep: NDArray[np.bool_]) -> LayeredPlacement:
        """Return the layers where ``keep`` is true, each under its own id."""
        keep = as_numpy(keep, "keep")
        if keep.shape != (len(self.layer_ids),) or keep.dtype.kind != "b":
            raise InvalidInputError(f"keep is {shown(keep)}; it must say of each layer whether it is kept.")
        if not keep.any():
            raise InvalidInputError(f"{self.source} has no layer with tokens; plan on a load that has some.")
        ids = tuple(layer for layer, kept in zip(self.layer_ids, keep, strict=True) if kept)
        shares = None if self.shares is None else self.shares[keep]
        return replace(self, physical_to_logical=self.physical_to_logical[keep], layer_ids=ids, shares=shares)

    def starting_at(self, first_layer: int | None) -> LayeredPlacement:
        """Return the same placement with ids that count from ``first_layer``; None keeps them."""
        return replace(self, layer_ids=shifted(self.layer_ids, first_layer))

    def with_draft_layers(self, number: int) -> LayeredPlacement:
        """Return the same placement with so many layers more after the last, slot s of them for expert s modulo all.

        The slots of lost ranks stay empty in them too, and are not counted.
        """
        if count(number, "mtp_layers", least=0) > MOST_DRAFT_LAYERS:
            raise InvalidInputError(f"mtp_layers is {number}; a model has at most {MOST_DRAFT_LAYERS} draft layers.")
        if not number:
            return self
        row = np.full(self.num_slots, -1, dtype=np.int32)
        held = (self.physical_to_logical >= 0).any(axis=0)
        row[held] = np.arange(held.sum(), dtype=np.int32) % self.num_logical_experts
        table = np.concatenate([self.physical_to_logical, np.tile(row, (number, 1))])
        ids = (*self.layer_ids, *range(self.layer_ids[-1] + 1, self.layer_ids[-1] + 1 + number))
        shares = self.shares
        if shares is not None:
            even = Shares.even(Placement(row[None], 1, self.num_logical_experts)).values
            shares = np.concatenate([shares, np.repeat(even, number, axis=0)])
        return replace(self, physical_to_logical=table, layer_ids=ids, shares=shares)

    def by_rank(self, wanted_by: str) -> NDArray[np.int32]:
        """Return the experts of each rank: int32, shape (num_layers, num_ranks, slots_per_rank)."""
        if self.num_ranks is None:
            raise InvalidInputError(
                f"{self.source} does not say how many ranks its {self.num_slots} slots are on, and {wanted_by} needs "
                "that; name the number of ranks."
            )
        return self.physical_to_logical.reshape(len(self.layer_ids), self.num_ranks, -1)


def shifted(layer_ids: tuple[int, ...], first: int | None) -> tuple[int, ...]:
    """Return the ids moved so that they start at ``first``; None leaves them.

    >>> shifted((0, 1, 2), 3)
    (3, 4, 5)
    """
    if first is None:
        return layer_ids
    first = count(first, "the first layer", least=0)
    return tuple(layer - layer_ids[0] + first for layer in layer_ids)


def fill_layers(array: NDArray[Any], layer_ids: tuple[int, ...], filler: NDArray[Any]) -> NDArray[Any]:
    """Return ``array`` with a row for every model layer from 0 to the last id: ``filler`` where there was none.

    For engines that count dense layers too.

    >>> fill_layers(np.array([[5, 6]]), (1,), np.array([0, 0])).tolist()
    [[0, 0], [5, 6]]
    """
    check_table(layer_ids[-1] + 1, len(filler), "the file")
    filled = np.tile(filler, (layer_ids[-1] + 1, 1)).astype(array.dtype)
    filled[list(layer_ids)] = array
    return filled


def refuse_duplicates(placement: LayeredPlacement, wanted_by: str) -> NDArray[np.int32]:
    """Return ``by_rank``, or refuse a placement that has an expert twice on a rank."""
    table = placement.by_rank(wanted_by)
    held = np.sort(table, axis=2)
    twice = held[:, :, 1:] == held[:, :, :-1]
    if twice.any():
        layer, rank, slot = (int(i) for i in np.argwhere(twice)[0])
        raise InvalidInputError(
            f"{placement.source}: layer {placement.layer_ids[layer]}, rank {rank} holds expert "
            f"{int(held[layer, rank, slot])} twice, which {wanted_by} cannot express; plan without duplicates."
        )
    return table
