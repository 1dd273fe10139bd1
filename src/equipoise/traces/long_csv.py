"""CSV in long form: a line for each expert that got tokens, ``(step,) layer, expert, count``, in any order."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.decode.source import opened
from equipoise.errors import FileFormatError, shown
from equipoise.limits import LARGEST_LONG_CSV, LONGEST_LINE, MOST_LAYERS, MOST_SLOTS
from equipoise.traces.trace import Source, Steps

__all__ = ["is_long_csv", "read_long_csv"]

NEEDED, OPTIONAL = ("layer", "expert", "count"), ("step",)
AT_ONCE = 1 << 21  # loads of one piece


def is_long_csv(head: bytes) -> bool:
    """Whether the first line names the columns of this form."""
    return set(NEEDED) <= set(_names(head.split(b"\n", 1)[0].decode("utf-8-sig", "replace")))


def _names(line: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in line.split(",")]


def read_long_csv(path: Path) -> Source:
    """Return the steps in a file, in ascending order of their numbers; steps that no line names are none.

    Raises
    ------
    FileFormatError
        If a line has no whole numbers where a step, layer or expert belongs, or a count that is none.
    """
    step, layer, expert, tokens = _read(path)
    named, step = np.unique(step, return_inverse=True)
    shape = len(named), int(layer.max()) + 1, int(expert.max()) + 1
    order = np.argsort(step, kind="stable")
    step, layer, expert, tokens = step[order], layer[order], expert[order], tokens[order]
    first = np.searchsorted(step, np.arange(len(named) + 1))
    number = max(1, AT_ONCE // (shape[1] * shape[2]))

    def pieces() -> Iterator[Steps]:
        for begin in range(0, len(named), number):
            end = min(begin + number, len(named))
            lines = slice(first[begin], first[end])
            counts = np.zeros((end - begin, *shape[1:]))
            np.add.at(counts, (step[lines] - begin, layer[lines], expert[lines]), tokens[lines])
            yield Steps(counts)

    return Source(shape, pieces)


def _read(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    columns: tuple[list[int], list[int], list[int], list[float]] = ([], [], [], [])
    with opened(path, LARGEST_LONG_CSV) as (stream, _), io.TextIOWrapper(stream, "utf-8-sig", newline=None) as text:
        names = _names(text.readline(LONGEST_LINE))
        at = [names.index(name) if name in names else -1 for name in (*OPTIONAL, *NEEDED)]
        try:
            for number, cells in enumerate(csv.reader(text, strict=True, skipinitialspace=True), start=2):
                if cells:
                    _add(cells, at, columns, len(names), f"{path}, line {number}")
        except csv.Error as error:
            raise FileFormatError(f"{path}: this is not CSV ({error}).") from None
        except UnicodeDecodeError:
            raise FileFormatError(f"{path}: this is not UTF-8 text; save the file as UTF-8.") from None
    if not columns[0]:
        raise FileFormatError(f"{path} holds a header and no counts; add a line for each expert that got tokens.")
    step, layer, expert = (np.array(column, dtype=np.int64) for column in columns[:3])
    return step, layer, expert, np.array(columns[3])


LIMITS = (2**62, MOST_LAYERS, MOST_SLOTS)


def _add(
    cells: list[str],
    at: list[int],
    columns: tuple[list[int], list[int], list[int], list[float]],
    width: int,
    where: str,
) -> None:
    if len(cells) != width:
        raise FileFormatError(f"{where} has {len(cells)} cells and the header {width}; every line needs the same.")
    for column, place, most, name in zip(columns[:3], at, LIMITS, (*OPTIONAL, *NEEDED), strict=False):
        cell = "0" if place < 0 else cells[place].strip()
        if not (cell.isascii() and cell.isdigit()) or len(cell) > 19 or int(cell) >= most:
            raise FileFormatError(f"{where}: {name} is {shown(cell)}; it must be a whole number below {most:,}.")
        column.append(int(cell))
    cell = cells[at[3]].strip()
    try:
        tokens = float(cell)
    except ValueError:
        tokens = -1.0
    if not 0 <= tokens < np.inf or "_" in cell:
        raise FileFormatError(f"{where}: count is {shown(cell)}; it must be a finite number, not negative.")
    columns[3].append(tokens)
