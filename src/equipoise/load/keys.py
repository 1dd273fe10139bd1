"""The keys of rows, layers and steps and experts: whole numbers, each once, that become the ids of layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import FileFormatError
from equipoise.load.documents import from_array
from equipoise.load.statistics import LoadStatistics

__all__ = ["first_repeat", "named", "plain", "whole"]

Floats = NDArray[np.float64]


def whole(values: Floats, what: str, path: Path, first: int) -> Floats:
    """Return the cells of a column of keys, all of them whole numbers, or raise ``FileFormatError`` with the line."""
    wrong = values != np.floor(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FileFormatError(f"{path}, line {first + row}: {what} is {values[row]}; it must be a whole number.")
    return values


def plain(value: float) -> int | float:
    """Return a number as it would be written."""
    return int(value) if value.is_integer() else float(value)


def first_repeat(*keys: Floats) -> int:
    """Return the first row whose keys are those of an earlier one, -1 if there is none."""
    code = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        values, place = np.unique(key, return_inverse=True)
        _, code = np.unique(code * len(values) + place.reshape(-1), return_inverse=True)
    _, where = np.unique(code, return_index=True)
    if len(where) == len(code):
        return -1
    fresh = np.zeros(len(code), dtype=np.bool_)
    fresh[where] = True
    return int(np.argmin(fresh))


def named(tokens: Floats, layer_ids: Sequence[float], path: Path) -> LoadStatistics:
    """Return the load of a table whose layers have these ids."""
    ids = tuple(int(layer) for layer in layer_ids)
    read = from_array(tokens, path, "the table")
    return LoadStatistics(read.tokens_per_expert, source=str(path), layer_ids=ids)
