"""The three tensors of the published ``rebalance_experts``, kept together in a torch file.

    {"physical_to_logical_map": int64 [L, P], "logical_to_physical_map": int64 [L, E, X], "expert_count": int64 [L, E]}

X is the largest replica count, -1 pads, and in the first tensor it is an empty slot, of a lost rank. Only the first is
information; the others are checked against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.arrays import as_numpy
from equipoise.engines.layered import LayeredPlacement
from equipoise.engines.sglang_maps import save_torch, table_of
from equipoise.errors import FileFormatError, listed
from equipoise.placement import Placement

__all__ = ["is_tensors", "read_tensors", "write_tensors"]

KEYS = ("physical_to_logical_map", "logical_to_physical_map", "expert_count")


def is_tensors(document: Any) -> bool:
    """Whether a decoded document holds the three tensors."""
    return isinstance(document, Mapping) and "logical_to_physical_map" in document


def read_tensors(document: Mapping[Any, Any], path: Path) -> LayeredPlacement:
    """Return the placement in the three tensors; they say nothing of ranks.

    Raises
    ------
    FileFormatError
        If a key is missing or unknown, or the tensors contradict each other.
    """
    if set(document) != set(KEYS):
        raise FileFormatError(f"{path} has the keys {listed(document)}; it must have {listed(KEYS)}.")
    placement = table_of(document[KEYS[0]], path, may_be_empty=True)
    derived = Placement(placement.physical_to_logical, 1, placement.num_logical_experts)
    slots, replicas = (as_numpy(document[key], f"{path}: {key}") for key in KEYS[1:])
    if not np.array_equal(replicas, derived.replica_count):
        raise FileFormatError(f"{path}: expert_count does not count the slots of physical_to_logical_map.")
    # Where one expert has many replicas, the map is far larger than the first tensor: it is only made if it is there.
    # The published program lists the slots of an expert by replica, not in ascending order.
    if slots.shape != (*replicas.shape, int(replicas.max())) or not np.array_equal(
        np.sort(slots, axis=-1), np.sort(derived.logical_to_physical, axis=-1)
    ):
        raise FileFormatError(f"{path}: logical_to_physical_map does not list the slots of physical_to_logical_map.")
    return placement


def write_tensors(placement: LayeredPlacement) -> bytes:
    """Return the three tensors as a torch file."""
    derived = Placement(placement.physical_to_logical, 1, placement.num_logical_experts)
    arrays = derived.physical_to_logical, derived.logical_to_physical, derived.replica_count
    return save_torch(
        lambda torch: {k: torch.from_numpy(array.astype(np.int64)) for k, array in zip(KEYS, arrays, strict=True)}
    )
