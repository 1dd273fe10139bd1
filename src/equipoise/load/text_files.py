"""Loads in text: JSON, and tables with commas, semicolons, tabs or blanks between the cells."""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from equipoise.decode.json import decode_json
from equipoise.decode.source import opened
from equipoise.errors import FileFormatError, shown
from equipoise.limits import LARGEST_CSV, LONGEST_LINE, MOST_LAYERS
from equipoise.load.columns import whole_in
from equipoise.load.documents import from_document, no_keys
from equipoise.load.statistics import LoadStatistics
from equipoise.load.tables import Layout, is_header, layout_of, read_rows

__all__ = ["read_csv", "read_json"]

_QUOTED = re.compile(r'"[^"]*"')
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_BALANCER = ("num_slots:", "initial_global_assignments:", "moe_config:", "layer_updates_per_iter:")


def read_json(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a JSON file: a nested list, or an object that a row of ``LAYOUTS`` knows."""
    return from_document(decode_json(path), path, key)


def read_csv(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a table of text: a line for each layer, or for each layer and expert; see ``tables.py``.

    Commas, semicolons, tabs or blanks stand between the cells, as the first line has it; lines that begin with # are
    remarks, the last of them may name the columns. ``key`` names the column of counts where several could be it.
    """
    # newline=None: every kind of line end counts as one line
    with opened(path, LARGEST_CSV) as (stream, _), io.TextIOWrapper(stream, "utf-8-sig", newline=None) as text:
        table = _Table(path, key)
        lines = _Lines(text, path)
        # strict: a quote that never closes must not swallow the rest of the file as one cell
        reader = csv.reader(lines, delimiter=lines.delimiter, strict=True, skipinitialspace=True)
        try:
            for cells in reader:
                table.add(cells, lines.skipped + reader.line_num, lines.remark)
        except csv.Error as error:
            raise FileFormatError(f"{path}, line {reader.line_num}: this is not CSV ({error}).") from None
        except UnicodeDecodeError:
            raise FileFormatError(f"{path}: this is not UTF-8 text; save the file as UTF-8.") from None
    return table.read()


class _Lines:
    """The lines of a table without leading remarks, none of them without end; blanks between cells become tabs."""

    def __init__(self, text: TextIO, path: Path) -> None:
        self._text, self._path = text, path
        self.remark, self.skipped = "", 0
        try:
            self._first = self._next()
            while self._first.startswith("#"):
                self.remark = self._first.lstrip("#").strip()
                self.skipped += 1
                self._first = self._next()
        except UnicodeDecodeError:
            raise FileFormatError(f"{path}: this is not UTF-8 text; save the file as UTF-8.") from None
        if self._first.lstrip().startswith(_BALANCER):
            raise FileFormatError(
                f"{path} is a placement, the load balancer's configuration of TensorRT-LLM, and a load is asked for: "
                "tokens per layer and expert."
            )
        bare = _QUOTED.sub("", self._first).strip()
        self.delimiter = next((sign for sign in "\t;," if sign in bare), " " if len(bare.split()) > 1 else ",")
        self._by_blanks = self.delimiter == " "
        if self._by_blanks:
            self.delimiter = "\t"

    def cells(self, line: str) -> list[str]:
        """Split a remark as the lines are split."""
        return line.split() if self._by_blanks else [cell.strip() for cell in line.split(self.delimiter)]

    def __iter__(self) -> Iterator[str]:
        line = self._first
        while line:
            yield "\t".join(line.split()) + "\n" if self._by_blanks else line
            line = self._next()

    def _next(self) -> str:
        line = self._text.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise FileFormatError(
                f"{self._path} has a line of more than {LONGEST_LINE:,} characters, which no layer takes."
            )
        return line


class _Table:
    """Rows of numbers as they come, and what the first line says of their columns."""

    def __init__(self, path: Path, key: str | None) -> None:
        self._path, self._key = path, key
        self._layout: Layout | None = None
        self._numbers = array("d")
        self._height = self._width = self._first = self._blank = 0
        self._names: list[str] = []

    def add(self, cells: list[str], line: int, remark: str) -> None:
        """Take the cells of a line."""
        if not any(cell.strip() for cell in cells):
            self._blank = self._blank or line  # at the end of the file, blank lines do no harm
            return
        if self._blank:
            raise FileFormatError(f"{self._path}, line {self._blank} is empty; each line must hold one layer.")
        if not self._width:
            self._begin(cells, remark)
            if self._names:
                return
        if self._height == 0:
            self._first = line
            self._meet(cells)
        row = self._row(cells, f"{self._path}, line {line}")
        if len(cells) != self._width:
            raise FileFormatError(
                f"{self._path}, line {line} has width {len(cells)}, line 1 has width {self._width}; "
                "every line needs the same number of cells."
            )
        self._height += 1
        if self._height > MOST_LAYERS and self._layout is None:
            raise FileFormatError(f"{self._path} has more than {MOST_LAYERS:,} lines, which no model has layers.")
        self._numbers.extend(row)

    def read(self) -> LoadStatistics:
        """Return the load."""
        if not self._height:
            raise FileFormatError(f"{self._path} holds a header and no numbers; add a line for each layer.")
        if self._layout is None and self._key is not None:
            raise no_keys(self._path, self._key)
        rows = np.frombuffer(self._numbers, dtype=np.float64).reshape(self._height, self._width)
        return read_rows(rows, self._layout, self._path, self._first)

    def _begin(self, cells: list[str], remark: str) -> None:
        """Find the names of the columns: in the first line, or in the remark before it."""
        names = [cell.strip() for cell in cells]
        words = all(_number(name) is not None or not name or _has_letter(name) for name in names)
        if words and is_header([_number(name) for name in names]):
            self._names = names
        elif remark:
            told = [name for name in re.split(r"[\t;,]|\s+", remark) if name]
            if len(told) == len(cells):
                self._layout = layout_of(told, self._path, self._key)
        self._width = len(cells)

    def _meet(self, cells: list[str]) -> None:
        """Bring names and cells of the first row together: a first column may be an index without a name."""
        if not self._names:
            if _number(cells[0]) is None and whole_in(cells[0]) is not None and len(cells) > 1:
                self._layout = layout_of(["index", *map(str, range(len(cells) - 1))], self._path, self._key)
            return
        if len(cells) == len(self._names) + 1 and len(self._names) > 1:
            self._names = ["index", *self._names]
        self._width = len(self._names)
        self._layout = layout_of(self._names, self._path, self._key)

    def _row(self, cells: list[str], place: str) -> list[float]:
        layout, row = self._layout, []
        for column, cell in enumerate(cells):
            if layout is not None and not layout.is_in_use(column):
                row.append(0.0)
                continue
            value = _number(cell)
            if value is None and layout is not None and column in layout.keys:
                value = whole_in(cell)
            if value is None:
                found = shown(cell) if cell.strip() else "nothing"
                if _DECIMAL_COMMA.fullmatch(cell.strip()):
                    raise FileFormatError(f"{place}, column {column + 1} holds {found}; write decimals with a point.")
                raise FileFormatError(
                    f"{place}, column {column + 1} holds {found}; it must be a number, with commas between numbers."
                )
            if not (math.isfinite(value) and value >= 0):
                raise FileFormatError(
                    f"{place}, column {column + 1} is {value}; loads must be finite and not negative."
                )
            row.append(value)
        return row


def _has_letter(text: str) -> bool:
    return any(character.isalpha() for character in text)


def _number(cell: str) -> float | None:
    if "_" in cell or not cell.isascii():  # float("1_000") and other alphabets' digits are Python's, not a table's
        return None
    try:
        return float(cell)
    except ValueError:
        return None
