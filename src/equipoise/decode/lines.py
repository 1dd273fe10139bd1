"""The lines of a table in text, and what stands between their cells."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from equipoise.decode.source import opened
from equipoise.errors import FileFormatError
from equipoise.limits import LARGEST_CSV, LONGEST_LINE

__all__ = ["Lines", "open_lines"]

_QUOTED = re.compile(r'"[^"]*"')
_SEPARATOR = re.compile(r'"?sep=([,;|\t])"?\s*')


@contextmanager
def open_lines(path: Path) -> Iterator[Lines]:
    """Open a table in text, packed by gzip or not."""
    # newline=None: every kind of line end counts as one line
    with opened(path, LARGEST_CSV) as (stream, _), io.TextIOWrapper(stream, "utf-8-sig", newline=None) as text:
        try:
            yield Lines(text, path)
        except UnicodeDecodeError:
            raise FileFormatError(f"{path}: this is not UTF-8 text; save the file as UTF-8.") from None


class Lines:
    """The lines of a table without remarks, none of them without end.

    ``delimiter`` is what stands between cells, as the first line has it, ``remark`` the last before it.
    """

    def __init__(self, text: TextIO, path: Path) -> None:
        self._text, self._path = text, path
        self.remark, self._skipped = "", 0
        self.first = self._next()
        while self.first.startswith("#") or self.first.isspace():
            self.remark = self.first.lstrip("#").strip() or self.remark
            self._skipped += 1
            self.first = self._next()
        told = _SEPARATOR.fullmatch(self.first)
        if told is not None:  # a first line that spreadsheets write for each other
            self._skipped += 1
            self.first = self._next()
        bare = _QUOTED.sub("", self.first).strip()
        found = next((sign for sign in "\t;,|" if sign in bare), " " if len(bare.split()) > 1 else ",")
        self.delimiter = found if told is None else told[1]

    def cells(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each line and its cells."""
        # strict: a quote that never closes must not swallow the rest of the file as one cell
        delimiter = "\t" if self.delimiter == " " else self.delimiter
        reader = csv.reader(self._lines(), delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            for cells in reader:
                yield self._skipped + reader.line_num, cells
        except csv.Error as error:
            raise FileFormatError(f"{self._path}, line {reader.line_num}: this is not CSV ({error}).") from None

    def _lines(self) -> Iterator[str]:
        """Yield the lines that are no remarks; blanks between cells become tabs."""
        line = self.first
        while line:
            if line.startswith("#"):
                self._skipped += 1
            else:
                yield "\t".join(line.split()) + "\n" if self.delimiter == " " else line
            line = self._next()

    def _next(self) -> str:
        line = self._text.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise FileFormatError(
                f"{self._path} has a line of more than {LONGEST_LINE:,} characters, which no layer takes."
            )
        return line
