"""Measured times in a CSV file: one line a measurement, told apart by the columns of its header.

Either ``active_experts``, ``tokens_per_active_expert`` and ``microseconds``, among others; what else names a GPU or a
kernel (``gpu``, ``phase``) splits the file. Or ``microseconds`` and one column for each slot of a rank.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.arguments import as_path
from equipoise.decode.source import opened, reading
from equipoise.errors import FileFormatError, shown
from equipoise.latency.fit import COLUMNS
from equipoise.latency.model import LatencyModel
from equipoise.limits import LARGEST_CSV

__all__ = ["fit_file"]

NAMES = ("gpu", "phase")
MOST_ROWS = 100_000


def fit_file(path: Any) -> dict[str, LatencyModel]:
    """Return the model that fits each GPU and phase of a CSV file, by name; "" where the file names none.

    Raises
    ------
    FileFormatError
        If there is no such file, or it is no table of measured times.
    """
    path = as_path(path)
    with reading(path):
        header, rows = _read(path)
        named = [header.index(name) for name in NAMES if name in header]
        parts: dict[str, list[list[str]]] = {}
        for row in rows:
            parts.setdefault(" ".join(row[at] for at in named), []).append(row)
        return {name: _fit(header, part, f"{path}{name and f', {name}'}") for name, part in parts.items()}


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    with opened(path, LARGEST_CSV) as (stream, _), io.TextIOWrapper(stream, "utf-8-sig", newline=None) as text:
        try:
            lines = [row for row in csv.reader(text, strict=True, skipinitialspace=True) if any(map(str.strip, row))]
        except csv.Error as error:
            raise FileFormatError(f"{path} is not CSV ({error}).") from None
        except UnicodeDecodeError:
            raise FileFormatError(f"{path} is not UTF-8 text; save the file as UTF-8.") from None
    header = [cell.strip() for cell in lines[0]] if lines else []
    if "microseconds" not in header:
        raise FileFormatError(f"{path} has no column microseconds in its first line; it must name the columns.")
    if len(lines) - 1 > MOST_ROWS:
        raise FileFormatError(f"{path} has {len(lines) - 1:,} measurements; at most {MOST_ROWS:,} are fitted at once.")
    for number, row in enumerate(lines[1:], start=2):
        if len(row) != len(header):
            raise FileFormatError(f"{path}, row {number} has {len(row)} cells, the first line {len(header)}.")
    return header, lines[1:]


def _fit(header: list[str], rows: list[list[str]], source: str) -> LatencyModel:
    table = {
        name: np.array([_number(row[at], source, name) for row in rows])
        for at, name in enumerate(header)
        if name not in NAMES and (name in COLUMNS or COLUMNS[0] not in header)
    }
    if COLUMNS[0] in header:
        return LatencyModel.fit(table, source=source)
    microseconds = table.pop("microseconds")
    if not table:
        raise FileFormatError(f"{source} has no column of tokens; it needs one for each slot, or {', '.join(COLUMNS)}.")
    return LatencyModel.fit(np.stack(list(table.values()), axis=1), microseconds, source=source)


def _number(cell: str, source: str, column: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise FileFormatError(f"{source}, column {column} holds {shown(cell)}; it must hold numbers, not negative.")
    return number
