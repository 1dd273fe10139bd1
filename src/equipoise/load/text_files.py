"""Loads in text: JSON, and CSV with one line a layer."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from equipoise.decode.json import decode_json
from equipoise.decode.source import opened
from equipoise.errors import FileFormatError, shown
from equipoise.limits import LARGEST_CSV, LONGEST_LINE, MOST_LAYERS
from equipoise.load.documents import from_array, from_document, no_keys
from equipoise.load.statistics import LoadStatistics

__all__ = ["read_csv", "read_json"]

Floats = NDArray[np.float64]


def read_json(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a JSON file: a nested list, or an object that a row of ``LAYOUTS`` knows."""
    return from_document(decode_json(path), path, key)


def read_csv(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a CSV file: a line for each layer, a number for each expert, commas between.

    One header line is allowed; it is a header if none of its cells is a number.
    """
    if key is not None:
        raise no_keys(path, key)
    rows: list[Floats] = []
    header, blank = 0, None
    # newline=None: every kind of line end counts as one line
    with opened(path, LARGEST_CSV) as (stream, _), io.TextIOWrapper(stream, "utf-8-sig", newline=None) as text:
        # strict: a quote that never closes must not swallow the rest of the file as one cell
        reader = csv.reader(_lines(text, path), strict=True, skipinitialspace=True)
        try:
            for cells in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in cells):
                    blank = blank or line  # at the end of the file, blank lines do no harm
                    continue
                if blank is not None:
                    raise FileFormatError(f"{path}, line {blank} is empty; each line must hold one layer.")
                if line == 1 and all(cell.strip() and _number(cell) is None for cell in cells):
                    header = len(cells)
                    continue
                if len(rows) == MOST_LAYERS:
                    raise FileFormatError(f"{path} has more than {MOST_LAYERS:,} lines, which no model has layers.")
                rows.append(np.array(_row(cells, f"{path}, line {line}")))
                width = header or len(rows[0])
                if len(cells) != width:
                    raise FileFormatError(
                        f"{path}, line {line} has width {len(cells)}, line 1 has width {width}; "
                        "every line needs the same number of cells."
                    )
        except csv.Error as error:
            raise FileFormatError(f"{path}, line {reader.line_num}: this is not CSV ({error}).") from None
        except UnicodeDecodeError:
            raise FileFormatError(f"{path}: this is not UTF-8 text; save the file as UTF-8.") from None
    if not rows:
        raise FileFormatError(f"{path} holds a header and no numbers; add a line for each layer.")
    return from_array(np.stack(rows), path, "the table")


def _lines(text: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines, and none that never ends."""
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise FileFormatError(f"{path} has a line of more than {LONGEST_LINE:,} characters, which no layer takes.")
        yield line


def _row(cells: list[str], place: str) -> list[float]:
    row = []
    for column, cell in enumerate(cells, start=1):
        value = _number(cell)
        if value is None:
            found = shown(cell) if cell.strip() else "nothing"
            raise FileFormatError(
                f"{place}, column {column} holds {found}; it must be a number, with commas between numbers."
            )
        if not (math.isfinite(value) and value >= 0):
            raise FileFormatError(f"{place}, column {column} is {value}; loads must be finite and not negative.")
        row.append(value)
    return row


def _number(cell: str) -> float | None:
    if "_" in cell or not cell.isascii():  # float("1_000") and other alphabets' digits are Python's, not a table's
        return None
    try:
        return float(cell)
    except ValueError:
        return None
