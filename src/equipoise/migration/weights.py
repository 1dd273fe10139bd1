"""The tensors of one rank while they move: the rows of its slots, its spare buffer, and buffers for what arrives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from equipoise.arrays import is_torch
from equipoise.errors import InvalidInputError, shown
from equipoise.migration.schedule import MigrationSchedule

__all__ = ["Rows", "Weights", "check_restore", "check_tensors", "copy_rows", "from_bytes", "to_bytes"]

Rows = list[Any]  # one tensor each: the weights of one expert


class Weights:
    """What one rank holds of one layer after the other.

    Parameters
    ----------
    tensors : sequence over layers of sequences of torch tensors
        As ``Migration`` takes them.
    schedule : MigrationSchedule

    Attributes
    ----------
    layer : int
        Whose rows these are now; see ``turn_to``.
    spare : list of tensors, or None
        The spare buffer, while it is in use.

    Raises
    ------
    InvalidInputError
        If the tensors do not fit the schedule.
    """

    def __init__(self, tensors: Sequence[Sequence[Any]], schedule: MigrationSchedule) -> None:
        self._num_slots, self._width = schedule.num_slots, schedule.slots_per_rank
        self._tensors = check_tensors(tensors, schedule.num_layers, self._width)
        self.layer = 0
        self.spare: Rows | None = None
        self._buffers: list[Rows] = []

    @property
    def kinds(self) -> str:
        """Shapes and types of all tensors: the same on all ranks that can exchange them."""
        return str([[(tuple(tensor.shape), str(tensor.dtype)) for tensor in own] for own in self._tensors])

    @property
    def is_cuda(self) -> bool:
        """Whether this layer lies on a GPU."""
        return bool(self._tensors[self.layer][0].is_cuda)

    def turn_to(self, layer: int) -> None:
        """Go on to another layer, which may have other shapes."""
        self.layer, self._buffers = layer, []

    def rows(self, slot: int) -> Rows:
        """Return the rows of a slot, or the spare buffer, of this rank."""
        if slot >= self._num_slots:
            assert self.spare is not None
            return self.spare
        return [tensor[slot % self._width] for tensor in self._tensors[self.layer]]

    def take_buffer(self) -> Rows:
        """Return room for one expert."""
        return self._buffers.pop() if self._buffers else [row.new_empty(row.shape) for row in self.rows(0)]

    def give_back(self, buffer: Rows) -> None:
        """Take back a buffer that is no longer used."""
        self._buffers.append(buffer)

    def stash(self, slot: int) -> None:
        """Copy a slot into the spare."""
        self.spare = self.take_buffer()
        copy_rows(self.rows(slot), self.spare)

    def free_spare(self) -> None:
        """Let go of what the spare holds."""
        if self.spare is not None:
            self.give_back(self.spare)
            self.spare = None


def check_tensors(tensors: Any, num_layers: int, slots_per_rank: int) -> list[list[Any]]:
    """Return the tensors of each layer, or say which of them does not hold a row for each slot of this rank."""
    try:
        layers = list(tensors)
    except TypeError:
        raise InvalidInputError(
            f"weights is a {type(tensors).__name__}; pass a sequence of tensors for each layer."
        ) from None
    if len(layers) != num_layers:
        raise InvalidInputError(
            f"weights has {len(layers)} layers and the placement {num_layers}; pass the tensors of each layer."
        )
    return [_check_layer(own, layer, slots_per_rank) for layer, own in enumerate(layers)]


def _check_layer(tensors: Any, layer: int, slots_per_rank: int) -> list[Any]:
    if is_torch(tensors) or not isinstance(tensors, Iterable):
        raise InvalidInputError(
            f"weights of layer {layer} is a {type(tensors).__name__}; pass a list of tensors, if only of one."
        )
    own = list(tensors)
    if not own:
        raise InvalidInputError(f"weights of layer {layer} holds no tensor; pass at least one.")
    for i, tensor in enumerate(own):
        if not is_torch(tensor):
            raise InvalidInputError(f"tensor {i} of layer {layer} is a {type(tensor).__name__}; pass torch tensors.")
        if tensor.dim() < 1 or tensor.shape[0] != slots_per_rank or not tensor.is_contiguous():
            raise InvalidInputError(
                f"tensor {i} of layer {layer} has shape {tuple(tensor.shape)}"
                f"{'' if tensor.is_contiguous() else ' and is not contiguous'}; it must be contiguous, with "
                f"{slots_per_rank} rows, one for each slot of this rank."
            )
    return own


def check_restore(restore: Any, schedule: MigrationSchedule | None = None) -> Any:
    """Return ``restore``, or say what it must be, or for what the schedule needs it."""
    if restore is not None and not callable(restore):
        raise InvalidInputError(f"restore is {shown(restore)}; pass a function restore(layer, slot, expert), or None.")
    if restore is None and schedule is not None and len(schedule.restores):
        layer, _, expert = schedule.restores[0].tolist()
        raise InvalidInputError(
            f"no rank holds expert {expert} of layer {layer}, so it cannot be moved; pass restore=..., which loads it."
        )
    return restore


def copy_rows(source: Rows, destination: Rows) -> None:
    """Copy the weights of one expert over those of another."""
    for one, other in zip(source, destination, strict=True):
        other.copy_(one)


def to_bytes(rows: Rows) -> bytes:
    """Return the weights of one expert as bytes, for ways that take no tensors."""
    import torch

    return b"".join(row.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes() for row in rows if row.numel())


def from_bytes(data: bytes, rows: Rows) -> bool:
    """Fill ``rows`` with what ``to_bytes`` returned; False, and nothing is touched, if the length is not theirs."""
    import torch

    filled = [row for row in rows if row.numel()]  # torch makes no tensor from no bytes
    ends = list(accumulate(row.numel() * row.element_size() for row in filled))
    if len(data) != (ends[-1] if ends else 0):
        return False
    for row, end in zip(filled, ends, strict=True):
        begin = end - row.numel() * row.element_size()
        row.copy_(torch.frombuffer(bytearray(data[begin:end]), dtype=row.dtype).view(row.shape))
    return True
