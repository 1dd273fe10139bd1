"""omni-infer's static patterns: a .npy array of 0 and 1, shape (num_ranks, num_layers, num_logical_experts).

A pattern says which ranks hold an expert and not in which slot, so a rank can hold an expert once, and a placement
read back has the experts of each rank in ascending order. Layers count from 0 over the MoE layers.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import check_table
from equipoise.engines.layered import LayeredPlacement, refuse_duplicates
from equipoise.errors import FileFormatError

__all__ = ["is_pattern", "read_pattern", "write_pattern"]


def is_pattern(array: NDArray[Any]) -> bool:
    """Whether an array has the shape of a pattern and holds only 0 and 1."""
    return (
        array.ndim == 3 and array.size > 0 and array.dtype.kind in "biu" and bool(0 <= array.min() <= array.max() <= 1)
    )


def read_pattern(array: NDArray[Any], path: Path) -> LayeredPlacement:
    """Return the placement of a pattern.

    Raises
    ------
    FileFormatError
        If ranks hold different numbers of experts, or an expert is nowhere.
    """
    ranks, layers, _ = array.shape
    check_table(layers, ranks, str(path))
    held = array.sum(axis=2, dtype=np.int64)
    if (held != held[0, 0]).any() or held[0, 0] == 0:
        rank, layer = (int(i) for i in np.argwhere(held != held[0, 0])[0]) if held[0, 0] else (0, 0)
        raise FileFormatError(
            f"{path}: rank {rank} holds {held[rank, layer]} experts of layer {layer} and rank 0 holds {held[0, 0]} of "
            "layer 0; a placement needs the same number everywhere."
        )
    slots = int(held[0, 0])
    check_table(layers, ranks * slots, str(path))
    table = np.empty((layers, ranks, slots), dtype=np.int32)
    for rank, rows in enumerate(array):
        table[:, rank] = np.nonzero(rows)[1].reshape(layers, slots)
    if array.shape[2] != table.max() + 1:
        raise FileFormatError(f"{path}: no rank holds expert {array.shape[2] - 1}; every expert needs a place.")
    return LayeredPlacement(table.reshape(layers, -1), tuple(range(layers)), ranks, str(path))


def write_pattern(placement: LayeredPlacement) -> bytes:
    """Return the pattern as a .npy file of int32.

    Raises
    ------
    InvalidInputError
        If a rank holds an expert twice, or the number of ranks is not known.
    """
    table = refuse_duplicates(placement, "omni-infer's pattern")
    layers, ranks, _ = table.shape
    pattern = np.zeros((layers, ranks, placement.num_logical_experts), dtype=np.int32)
    np.put_along_axis(pattern, table.astype(np.int64), 1, axis=2)
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(pattern.transpose(1, 0, 2)))
    return stream.getvalue()
