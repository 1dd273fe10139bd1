"""Loads in text: JSON, and CSV with one line a layer."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from equipoise.errors import FileFormatError
from equipoise.load.documents import from_array, from_document, no_keys
from equipoise.load.statistics import LoadStatistics

__all__ = ["decode_json", "read_csv", "read_json"]


def read_json(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a JSON file: a nested list, or an object that a row of ``LAYOUTS`` knows."""
    return from_document(decode_json(path), path, key)


def decode_json(path: Path) -> Any:
    """Return what a JSON file holds, or a ``FileFormatError`` that names the place where it stops being JSON."""
    text = _read_text(path)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise FileFormatError(f"{path} has the key {twice!r} twice in one object; keep one of them.")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"{path}, line {error.lineno}, column {error.colno}"
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            raise FileFormatError(
                f"{place}: the JSON ends before it is complete; the file looks truncated. Copy or write it again."
            ) from None
        raise FileFormatError(f"{place}: this is not JSON ({error.msg[:1].lower()}{error.msg[1:]}).") from None
    except RecursionError:
        raise FileFormatError(f"{path} nests lists too deeply for a load; three levels are the most.") from None
    except FileFormatError:
        raise
    except ValueError:  # Python's limit on the digits of an int
        raise FileFormatError(f"{path} holds a number with thousands of digits; float64 cannot hold it.") from None


def read_csv(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a CSV file: a line for each layer, a number for each expert, commas between.

    One header line is allowed; it is a header if none of its cells is a number.
    """
    if key is not None:
        raise no_keys(path, key)
    rows: list[list[float]] = []
    header = 0
    # newline=None: every kind of line end counts as one line
    lines = io.StringIO(_read_text(path).rstrip(), newline=None)
    # strict: a quote that never closes must not swallow the rest of the file as one cell
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                raise FileFormatError(f"{path}, line {line} is empty; each line must hold one layer.")
            if line == 1 and all(cell.strip() and _number(cell) is None for cell in cells):
                header = len(cells)
                continue
            rows.append(_row(cells, f"{path}, line {line}"))
            width = header or len(rows[0])
            if len(cells) != width:
                raise FileFormatError(
                    f"{path}, line {line} has width {len(cells)}, line 1 has width {width}; "
                    "every line needs the same number of cells."
                )
    except csv.Error as error:
        raise FileFormatError(f"{path}, line {reader.line_num}: this is not CSV ({error}).") from None
    if not rows:
        raise FileFormatError(f"{path} holds a header and no numbers; add a line for each layer.")
    return from_array(rows, path, "the table")


def _row(cells: list[str], place: str) -> list[float]:
    row = []
    for column, cell in enumerate(cells, start=1):
        value = _number(cell)
        if value is None:
            shown = repr(cell if len(cell) <= 40 else f"{cell[:37]}...") if cell.strip() else "nothing"
            raise FileFormatError(
                f"{place}, column {column} holds {shown}; it must be a number, with commas between numbers."
            )
        if not (math.isfinite(value) and value >= 0):
            raise FileFormatError(f"{place}, column {column} is {value}; loads must be finite and not negative.")
        row.append(value)
    return row


def _number(cell: str) -> float | None:
    if "_" in cell:  # float("1_000") is Python's spelling, not a table's
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _read_text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors put a byte order mark first
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}, byte {error.start}: this is not UTF-8 text; save the file as UTF-8.") from None
    return text
