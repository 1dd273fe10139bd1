"""Loads in text: JSON, and tables with commas, semicolons, tabs or blanks between the cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from equipoise.decode.json import decode_json
from equipoise.decode.source import opened
from equipoise.errors import FileFormatError
from equipoise.limits import LARGEST_CSV, LONGEST_LINE
from equipoise.load.long_tables import LongRows
from equipoise.load.records import from_json
from equipoise.load.statistics import LoadStatistics
from equipoise.load.text_tables import TextTable

__all__ = ["read_csv", "read_json", "read_long_csv"]

_QUOTED = re.compile(r'"[^"]*"')
_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\s*')
_BALANCER = ("num_slots:", "initial_global_assignments:", "moe_config:", "layer_updates_per_iter:")


def read_json(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a JSON file: a nested list, a table, or an object that ``documents.py`` knows.

    A file with a value a line (JSON Lines) is the list of them.
    """
    return from_json(decode_json(path, may_be_lines=True), path, key)


def read_csv(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a table of text: a line for each layer, or for each layer and expert; see ``tables.py``.

    Commas, semicolons, tabs, bars or blanks stand between the cells, as the first line has it, and perhaps after the
    last. Lines that begin with # are remarks; the last before the first row may name the columns. ``key`` names the
    column of counts where several could be it.
    """
    return _decoded(path, key).read()


def read_long_csv(path: Path, key: str | None = None) -> LongRows | None:
    """Return the counts of a table with a line for each, None of another table; errors are those of ``read_csv``."""
    return _decoded(path, key).read_long()


def _decoded(path: Path, key: str | None) -> TextTable:
    # newline=None: every kind of line end counts as one line
    with opened(path, LARGEST_CSV) as (stream, _), io.TextIOWrapper(stream, "utf-8-sig", newline=None) as text:
        lines = _Lines(text, path)
        table = TextTable(path, key, lines.delimiter)
        # strict: a quote that never closes must not swallow the rest of the file as one cell
        delimiter = "\t" if lines.delimiter == " " else lines.delimiter
        reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            for cells in reader:
                table.add(cells, lines.skipped + reader.line_num, lines.remark)
        except csv.Error as error:
            raise FileFormatError(f"{path}, line {reader.line_num}: this is not CSV ({error}).") from None
        except UnicodeDecodeError:
            raise FileFormatError(f"{path}: this is not UTF-8 text; save the file as UTF-8.") from None
    return table


class _Lines:
    """The lines of a table without remarks, none of them without end; blanks between cells become tabs.

    ``delimiter`` is what stands between cells in the file.
    """

    def __init__(self, text: TextIO, path: Path) -> None:
        self._text, self._path = text, path
        self.remark, self.skipped = "", 0
        try:
            self._first = self._next()
            while self._first.startswith("#") or self._first.isspace():
                self.remark = self._first.lstrip("#").strip() or self.remark
                self.skipped += 1
                self._first = self._next()
        except UnicodeDecodeError:
            raise FileFormatError(f"{path}: this is not UTF-8 text; save the file as UTF-8.") from None
        if self._first.lstrip().startswith(_BALANCER):
            raise FileFormatError(
                f"{path} is a placement, the load balancer's configuration of TensorRT-LLM, and a load is asked for: "
                "tokens per layer and expert."
            )
        told = _SEPARATOR.fullmatch(self._first)
        if told is not None:  # a first line that spreadsheets write for each other
            self.skipped += 1
            self._first = self._next()
        bare = _QUOTED.sub("", self._first).strip()
        found = next((sign for sign in "\t;,|" if sign in bare), " " if len(bare.split()) > 1 else ",")
        self.delimiter = found if told is None else told[1]
        self._by_blanks = self.delimiter == " "

    def cells(self, line: str) -> list[str]:
        """Split a remark as the lines are split."""
        return line.split() if self._by_blanks else [cell.strip() for cell in line.split(self.delimiter)]

    def __iter__(self) -> Iterator[str]:
        line = self._first
        while line:
            if line.startswith("#"):
                self.skipped += 1
            else:
                yield "\t".join(line.split()) + "\n" if self._by_blanks else line
            line = self._next()

    def _next(self) -> str:
        line = self._text.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise FileFormatError(
                f"{self._path} has a line of more than {LONGEST_LINE:,} characters, which no layer takes."
            )
        return line
