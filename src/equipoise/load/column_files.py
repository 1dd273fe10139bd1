"""Loads in Parquet and Arrow files: tables with named columns, read as ``tables.py`` reads all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.decode.columns import decode_columns
from equipoise.errors import FileFormatError, shown
from equipoise.load.columns import Column, key_in
from equipoise.load.layouts import layout_of
from equipoise.load.statistics import LoadStatistics
from equipoise.load.tables import read_rows

__all__ = ["read_columns"]


def read_columns(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a Parquet or Arrow file; pandas' own name for an index counts as none."""
    columns = decode_columns(path)
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
    if not (math.isfinite(number) and number >= 0):
        raise FileFormatError(
            f"{path}, row {row + 1}: column {shown(name)} is {shown(value)}; loads must be finite and not negative."
        )
    return float(number)
