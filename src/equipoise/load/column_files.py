"""Columns with names, of Parquet and Arrow files and of JSON: tables, read as ``tables.py`` reads all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.decode.columns import decode_columns
from equipoise.errors import FileFormatError, shown
from equipoise.load.columns import Column, key_in
from equipoise.load.layouts import layout_of
from equipoise.load.statistics import LoadStatistics
from equipoise.load.tables import read_rows

__all__ = ["from_columns", "read_columns"]


def read_columns(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a Parquet or Arrow file; pandas' own name for an index counts as none."""
    return from_columns(decode_columns(path), path, key)


def from_columns(columns: Mapping[str, Sequence[Any]], path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in columns of numbers, all as long; keys may be texts with one in them.

    Raises
    ------
    FileFormatError
        If their names or numbers break a rule. The message names the column and the row, from 1 on.
    """
    if not columns or not next(iter(columns.values())):
        raise FileFormatError(f"{path} holds no rows; it must hold a load.")
    names = list(columns)
    layout = layout_of(names, path, key)
    rows = np.zeros((len(next(iter(columns.values()))), len(columns)))
    for i, values in enumerate(columns.values()):
        if layout.is_in_use(i):
            column = layout.columns[i] if i in layout.keys else None
            rows[:, i] = [_number(value, column, path, names[i], row) for row, value in enumerate(values)]
    return read_rows(rows, layout, path, 1)


def _number(value: Any, column: Column | None, path: Path, name: str, row: int) -> float:
    number = value
    if column is not None and (isinstance(value, str) or hasattr(value, "isoformat")):
        number = key_in(str(value), column)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise FileFormatError(f"{path}, row {row + 1}: column {shown(name)} holds {shown(value)}; it must be a number.")
    try:
        number = float(number)
    except OverflowError:  # an int has no largest value, a float64 has
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise FileFormatError(
            f"{path}, row {row + 1}: column {shown(name)} is {shown(value)}; loads must be finite and not negative."
        )
    return number
