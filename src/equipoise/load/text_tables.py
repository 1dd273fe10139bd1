"""A table in text, a line at a time: what its first lines say of the columns, and what number each cell is.

A cell is a number only where nobody could read it as another: a sign between thousands is refused with the place, and
so is a comma or a point that may be one.
"""

from __future__ import annotations

import math
import re
from array import array
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import FileFormatError, shown
from equipoise.limits import MOST_LAYERS
from equipoise.load.columns import INDEX, columns_of, key_in, whole_in
from equipoise.load.documents import no_keys
from equipoise.load.headers import fold, is_complete, names_a_level, names_the_index
from equipoise.load.layouts import Layout, is_header, layout_of
from equipoise.load.long_tables import LongRows, long_rows
from equipoise.load.numbers import Signs, number_in
from equipoise.load.statistics import LoadStatistics
from equipoise.load.tables import read_rows

__all__ = ["TextTable"]

_SIGNS_BETWEEN = re.compile(r"[+-]?\d+([., '_\u00a0\u202f\u2019]\d+)+")


class TextTable:
    """Rows of numbers as they come, and what the first line says of their columns."""

    def __init__(self, path: Path, key: str | None, delimiter: str) -> None:
        self._path, self._key = path, key
        self._layout: Layout | None = None
        self._numbers = array("d")
        self._height = self._width = self._begun = self._first = self._blank = 0
        self._heads: list[list[str]] = []
        self._index: list[str] = []
        self._ends_in_sign = False
        self._by_blanks = delimiter == " "
        self._signs = Signs(delimiter)

    def add(self, cells: list[str], line: int, remark: str) -> None:
        """Take the cells of a line."""
        if not any(cell.strip() for cell in cells):
            self._blank = self._blank or line  # before the first row and at the end of the file they do no harm
            return
        if self._blank and self._height and not (self._layout is not None and self._layout.is_long):
            raise FileFormatError(f"{self._path}, line {self._blank} is empty; each line must hold one layer.")
        self._blank = 0
        if not self._begun:
            self._begun = line
            self._begin(cells, remark)
            if self._heads:
                return
        if self._height == 0:
            if self._heads and self._goes_on([cell.strip() for cell in cells]):
                return
            self._first = line
            self._meet(cells)
        if self._ends_in_sign and not cells[-1].strip():
            cells = cells[:-1]
        row = self._row(cells, f"{self._path}, line {line}")
        if len(cells) != self._width:
            raise FileFormatError(
                f"{self._path}, line {line} has width {len(cells)}, line {self._begun} has width {self._width}; "
                "every line needs the same number of cells."
            )
        self._height += 1
        if self._height > MOST_LAYERS and self._layout is None:
            raise FileFormatError(f"{self._path} has more than {MOST_LAYERS:,} lines, which no model has layers.")
        self._numbers.extend(row)

    def read(self) -> LoadStatistics:
        """Return the load."""
        return read_rows(self._rows(), self._layout, self._path, self._first)

    def read_long(self) -> LongRows | None:
        """Return the counts of a long table, None of another."""
        rows, layout = self._rows(), self._layout
        if layout is None or not layout.is_long:
            return None
        return long_rows(rows, layout, self._path, self._first)

    def _rows(self) -> NDArray[np.float64]:
        if not self._height:
            raise FileFormatError(f"{self._path} holds a header and no numbers; add a line for each layer.")
        if self._layout is None and self._key is not None:
            raise no_keys(self._path, self._key)
        self._signs.refuse_thousands()
        return np.frombuffer(self._numbers, dtype=np.float64).reshape(self._height, self._width)

    def _begin(self, cells: list[str], remark: str) -> None:
        """Find the names of the columns: in the first line, or in the remark before it."""
        names = [cell.strip() for cell in cells]
        words = all(number_in(name) is not None or not name or _has_letter(name) for name in names)
        if words and is_header([number_in(name) for name in names]) and not _is_row(names):
            self._heads = [names]
        elif remark:
            told = [name for name in re.split(r"[\t;,]|\s+", remark) if name]
            if len(told) == len(cells):
                self._layout = layout_of(told, self._path, self._key)

    def _goes_on(self, cells: list[str]) -> bool:
        """Whether a line goes on with the header; take its names if so."""
        if self._index:
            return False
        if names_the_index(self._heads, cells):
            self._index = [cell for cell in cells if cell]
            return True
        words = any(number_in(cell) is None for cell in cells) and not _is_row(cells)
        more = words and (names_a_level(cells[0]) or not is_complete(self._heads))
        if more and len(cells) == len(self._heads[0]):
            self._heads.append(cells)
        return more and len(cells) == len(self._heads[0])

    def _meet(self, cells: list[str]) -> None:
        """Bring names and cells of the first row together.

        A first column may be an index without a name, and a last one, without a name and a cell, nothing but the sign
        at the end of each line.
        """
        names = self._heads[0] if self._heads else []
        if self._index or len(self._heads) > 1:
            names = fold(self._heads, self._index, self._path)
        if len(cells) > 1 and not cells[-1].strip() and (len(names) != len(cells) or not names[-1]):
            self._ends_in_sign = True
            names, cells = (names[:-1] if names and not names[-1] else names), cells[:-1]
        if not names and len(cells) > 1 and number_in(cells[0]) is None and whole_in(cells[0]) is not None:
            names = ["index", *map(str, range(len(cells) - 1))]
        if len(cells) == len(names) + 1 and len(names) > 1:
            names = ["index", *names]
        self._width = len(names or cells)
        if names:
            self._layout = layout_of(names, self._path, self._key)
            self._refuse_two_readings(names)

    def _refuse_two_readings(self, names: list[str]) -> None:
        """Refuse what pandas prints of columns called expert: in a table of cells it is the name of the index."""
        if self._by_blanks and self._layout is not None and self._layout.is_turned and names[1].isdecimal():
            raise FileFormatError(
                f"{self._path} has {shown(names[0])} before the numbers {names[1]} to {names[-1]}, which may name its "
                "rows or its columns; name each column, as layer_0 or expert_0."
            )

    def _row(self, cells: list[str], place: str) -> list[float]:
        layout, row = self._layout, []
        for column, cell in enumerate(cells):
            if layout is not None and not layout.is_in_use(column):
                row.append(0.0)
                continue
            value = number_in(cell)
            if layout is not None and column in layout.keys:
                value = key_in(cell, layout.columns[column]) if value is None else value
            elif self._signs.are_open or value is None:
                value = self._signs.see(cell.strip(), value, f"{place}, column {column + 1}")
            if value is None:
                found = shown(cell) if cell.strip() else "nothing"
                if _SIGNS_BETWEEN.fullmatch(cell.strip()):
                    raise FileFormatError(
                        f"{place}, column {column + 1} holds {found}; write decimals with a point, and nothing between "
                        "thousands."
                    )
                raise FileFormatError(
                    f"{place}, column {column + 1} holds {found}; it must be a number, with commas between numbers."
                )
            if not (math.isfinite(value) and value >= 0):
                raise FileFormatError(
                    f"{place}, column {column + 1} is {value}; loads must be finite and not negative."
                )
            row.append(value)
        return row


def _is_row(names: list[str]) -> bool:
    """Whether a first line holds counts though not all of it are numbers: after a layer's name, or before a sign."""
    inner = names[:-1] if not names[-1] else names
    label = columns_of(inner[:1])[0]
    if number_in(label.name) is None and whole_in(label.name) is not None and label.role != INDEX:
        inner = inner[1:]
    numbers = [number for number in map(number_in, inner) if number is not None]
    from_one = numbers == list(range(1, len(inner) + 1))
    return len(numbers) == len(inner) > 1 and not from_one and not is_header(numbers)


def _has_letter(text: str) -> bool:
    return any(character.isalpha() for character in text)
