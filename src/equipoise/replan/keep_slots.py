"""An expert that stays on its rank keeps its slot: only then does it stay for free."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import count
from equipoise.arrays import as_numpy
from equipoise.errors import IndivisibleError, InvalidPlacementError, shown
from equipoise.kernels.native import native
from equipoise.limits import MOST_SLOTS
from equipoise.placement import Placement
from equipoise.threads import part

__all__ = ["in_their_slots", "keep_slots", "reorder"]

Ints = NDArray[np.int32]


def keep_slots(physical_to_logical: Any, current: Any, num_ranks: int) -> Ints:
    """Return the placement with the slots of each rank reordered so that whatever stays there does not move.

    Parameters
    ----------
    physical_to_logical : int array, shape (num_layers, num_slots)
        The new placement. Rank ``r`` owns slots ``r * S`` to ``(r + 1) * S - 1``, with
        ``S = num_slots / num_ranks``. -1 is an empty slot.
    current : int array, shape (num_layers, any number of slots)
        The placement in force, with the same ``S``. -1 is an empty slot. It may be narrower (ranks were
        added) or wider (the last ranks leave); ranks that only one of the two has keep nothing.
    num_ranks : int
        Ranks of the new placement.

    Returns
    -------
    int32 array, shape (num_layers, num_slots)
        Each rank holds the experts that it has in ``physical_to_logical``, as often as there. As many slots
        as possible hold what they hold in ``current``; the others take the rest in the order given.

    Raises
    ------
    InvalidPlacementError
        If an array does not hold experts or -1 in two axes, or the two have different numbers of layers.
    IndivisibleError
        If the ranks do not divide the slots.

    Examples
    --------
    >>> keep_slots([[3, 0, 1, 2]], current=[[0, 1, 2, 3]], num_ranks=2).tolist()
    [[0, 3, 2, 1]]
    """
    return reorder(*slot_tables(physical_to_logical, current, num_ranks))


def reorder(new: Ints, old: Ints, slots_per_rank: int) -> Ints:
    """Do as ``keep_slots`` with tables that are known to fit: int32, contiguous and writable."""
    kept = np.empty_like(new)
    _keep(new, old, slots_per_rank, kept)
    return kept


@part
def in_their_slots(held: Ints, current: Placement) -> Ints:
    """Return ``held`` [layers, ranks, slots] as [layers, slots], whatever stays on its rank in the slot that it had.

    A slot without an expert is -1.
    """
    layers, ranks, slots = held.shape
    old = current.physical_to_logical
    if (ranks, slots) != (current.num_ranks, current.slots_per_rank):
        both, width = min(ranks, current.num_ranks), min(slots, current.slots_per_rank)
        cut = np.full((layers, ranks, slots), -1, dtype=np.int32)
        cut[:, :both, :width] = old.reshape(layers, current.num_ranks, -1)[:, :both, :width]
        old = cut
    # Copies, because the native code would be compiled once more for read-only arrays.
    return reorder(np.maximum(held, -1).reshape(layers, -1), np.array(old.reshape(layers, -1)), slots)


def slot_tables(physical_to_logical: Any, current: Any, num_ranks: int) -> tuple[Ints, Ints, int]:
    """Return both placements as int32 arrays of their own with as many layers, and the slots of a rank."""
    num_ranks = count(num_ranks, "num_ranks")
    tables = []
    for value, name in ((physical_to_logical, "physical_to_logical"), (current, "current")):
        array = as_numpy(value, name)
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise InvalidPlacementError(
                f"{name} has shape {array.shape} and type {array.dtype}; it must hold integers in the shape "
                "(layers, slots)."
            )
        wrong = (array < -1) | (array >= MOST_SLOTS)
        if wrong.any():
            layer, slot = (int(i) for i in np.argwhere(wrong)[0])
            raise InvalidPlacementError(
                f"{name} is {array[layer, slot]} at layer {layer}, slot {slot}; it must be an expert below "
                f"{MOST_SLOTS:,}, or -1 for an empty slot."
            )
        # A copy, because the native code would be compiled once more for a read-only array.
        tables.append(np.array(array, dtype=np.int32, order="C"))
    new, old = tables
    if len(new) != len(old):
        raise InvalidPlacementError(
            f"physical_to_logical has {len(new)} layers and current has {len(old)}; pass placements of the same model."
        )
    if new.shape[1] % num_ranks or not new.shape[1]:
        raise IndivisibleError(
            f"{new.shape[1]} slots do not spread evenly over {shown(num_ranks)} ranks. "
            f"Use a number of slots that {shown(num_ranks)} divides."
        )
    return new, old, new.shape[1] // num_ranks


@native
def _keep(new, old, slots_per_rank, kept):
    layers, slots = new.shape
    placed = np.empty(slots_per_rank, dtype=np.bool_)
    for layer in range(layers):
        for first in range(0, slots, slots_per_rank):
            placed[:] = False
            for s in range(first, first + slots_per_rank):
                kept[layer, s] = -1
                if s >= old.shape[1] or old[layer, s] < 0:
                    continue
                for i in range(slots_per_rank):
                    if not placed[i] and new[layer, first + i] == old[layer, s]:
                        placed[i] = True
                        kept[layer, s] = old[layer, s]
                        break
            i = 0
            for s in range(first, first + slots_per_rank):
                if kept[layer, s] >= 0:
                    continue
                while placed[i]:
                    i += 1
                kept[layer, s] = new[layer, first + i]
                i += 1
