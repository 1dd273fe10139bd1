"""Measured times in a table of text: one line a measurement, told apart by the names of its columns.

Either ``active_experts``, ``tokens_per_active_expert`` and ``microseconds``, among others; what names a GPU or a kernel
(``SPLITTING``) splits the file. Or ``microseconds`` and one column for each slot of a rank. Names count without case
and signs; a time may be in another unit, as ``latency_ms``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_path
from equipoise.decode.lines import open_lines
from equipoise.decode.source import reading
from equipoise.errors import FileFormatError, listed, shown
from equipoise.latency.fit import COLUMNS
from equipoise.latency.model import LatencyModel
from equipoise.load.columns import EXPERT, INDEX, SLOT, Column, columns_of
from equipoise.load.numbers import Signs, number_in

__all__ = ["fit_file"]

SPLITTING = ("gpu", "phase", "device", "kernel", "dtype", "precision", "model", "backend", "stage", "mode")
ALWAYS = 2  # of them name a part where there is but one, too
MOST_ROWS = 100_000
_WORD = re.compile(r"[^\W\d_]")
NAMES = {
    "active_experts": ("activeexperts", "numactiveexperts", "active", "numactive", "activeslots", "activereplicas"),
    "tokens_per_active_expert": (
        "tokensperactiveexpert", "tokensperexpert", "tokensperslot", "tokensperactiveslot", "tokensperreplica",
    ),
}  # fmt: skip
UNITS = {
    1.0: ("microseconds", "microsecond", "us", "usec", "\u00b5s", "\u03bcs"),
    1e3: ("milliseconds", "millisecond", "ms", "msec"),
    1e6: ("seconds", "second", "s", "sec"),
    1e-3: ("nanoseconds", "nanosecond", "ns", "nsec"),
}
"""By the microseconds of one: the last word of a column's name, as in ``latency_ms``."""


@dataclass(frozen=True)
class Table:
    """Columns by name: ``numbers``, and ``words`` that split the rows. ``microseconds`` is one of the former."""

    numbers: dict[str, NDArray[np.float64]]
    words: dict[str, list[str]]


def fit_file(path: Any) -> dict[str, LatencyModel]:
    """Return the model that fits each GPU and phase of a table, by name; "" where the file names none.

    Raises
    ------
    FileFormatError
        If there is no such file, or it is no table of measured times.
    """
    path = as_path(path)
    with reading(path):
        table = _read(path)
        varying = [name for name in table.words if name in SPLITTING[:ALWAYS] or len({*table.words[name]}) > 1]
        parts: dict[str, list[int]] = {}
        for row in range(len(table.numbers[COLUMNS[2]])):
            parts.setdefault(" ".join(table.words[name][row] for name in varying), []).append(row)
        return {
            name: _fit({key: column[rows] for key, column in table.numbers.items()}, f"{path}{name and f', {name}'}")
            for name, rows in parts.items()
        }


def _read(path: Path) -> Table:
    rows: list[list[str]] = []
    with open_lines(path) as lines:
        for number, cells in lines.cells():
            if not any(map(str.strip, cells)):
                continue
            if rows and len(cells) != len(rows[0]):
                raise FileFormatError(f"{path}, line {number} has {len(cells)} cells, the first line {len(rows[0])}.")
            if len(rows) > MOST_ROWS:
                raise FileFormatError(f"{path} has more than {MOST_ROWS:,} measurements; fit a part of them.")
            rows.append([cell.strip() for cell in cells])
    header = _header(rows[0] if rows else [], path)
    if len(rows) < 2:
        raise FileFormatError(f"{path} names columns and holds no measurements; add a line for each.")
    table, signs = Table({}, {}), Signs(lines.delimiter)
    for name, *cells in zip(header, *rows[1:], strict=True):
        if name.lower() in SPLITTING:
            table.words[name.lower()] = cells
        elif name in COLUMNS or _unit(name) or not any(map(_WORD.search, cells)):
            table.numbers[COLUMNS[2] if _unit(name) else name] = _column(name, cells, path, signs)
    signs.refuse_thousands()
    table.numbers.pop("", None)
    return table


def _header(cells: Sequence[str], path: Path) -> list[str]:
    """Return the names of the columns, known ones as ``COLUMNS`` has them, "" of an index."""
    header = ["" if column.role == INDEX and column.number is None else column.name for column in columns_of(cells)]
    for name, spellings in NAMES.items():
        header = [name if re.sub(r"[\W_]", "", cell).lower() in spellings else cell for cell in header]
    times = [cell for cell in header if _unit(cell)]
    if len(times) != 1:
        why = f"several columns of times, {listed(times)}; keep one" if times else (
            f"no column microseconds in its first line, which has {listed(cells)}; it must name the columns, that of "
            "times with its unit"
        )  # fmt: skip
        raise FileFormatError(f"{path} has {why}.")
    named = [cell for cell in header if cell]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise FileFormatError(f"{path} has two columns called {shown(twice)}; keep one of them.")
    return header


def _unit(name: str) -> float | None:
    """Return the microseconds of one, if a column is one of times."""
    words = re.findall(r"[^\W\d_]+", name.lower())
    return next((size for size, units in UNITS.items() if words and words[-1] in units), None)


def _column(name: str, cells: Sequence[str], path: Path, signs: Signs) -> NDArray[np.float64]:
    """Return a column of numbers, times in microseconds."""
    values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        place = f"{path}, row {row + 1}, column {name}"
        value = signs.see(cell, number_in(cell), place)
        if value is None or not math.isfinite(value) or value < 0:
            raise FileFormatError(f"{place} holds {shown(cell)}; it must hold numbers, not negative.")
        values[row] = value
    return values * (_unit(name) or 1.0)


def _fit(table: dict[str, NDArray[np.float64]], source: str) -> LatencyModel:
    if COLUMNS[0] in table or COLUMNS[1] in table:
        return LatencyModel.fit(table, source=source)
    microseconds = table.pop(COLUMNS[2])
    slots = [name for name, column in zip(table, columns_of([*table]), strict=True) if _is_slot(column)]
    others = [name for name in table if name not in slots]
    if slots and others:
        raise FileFormatError(f"{source} has {shown(others[0])} beside the slots, as {shown(slots[0])}; remove it.")
    if not table:
        raise FileFormatError(f"{source} has no column of tokens; it needs one for each slot, or {', '.join(COLUMNS)}.")
    return LatencyModel.fit(np.stack(list(table.values()), axis=1), microseconds, source=source)


def _is_slot(column: Column) -> bool:
    return column.number is not None and column.role in (SLOT, EXPERT, INDEX)
