"""Headers of several lines, as pandas writes columns of several levels: one name a column is made of them.

    layer,0,0,1,1
    expert,0,1,0,1        "step", "layer 0 expert 0", "layer 0 expert 1", "layer 1 expert 0", ...
    step,,,,

The first cell of a line names its level; the last line, which is left out where they have none, names the index.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from equipoise.errors import FileFormatError, listed
from equipoise.load.columns import EXPERT, LAYER, columns_of, whole_in

__all__ = ["fold", "is_complete", "names_a_level", "names_the_index"]

_WORD = re.compile(r"[^\W\d]")
MOST_LEVELS = 4


def is_complete(lines: Sequence[Sequence[str]]) -> bool:
    """Whether the lines of a header tell all columns apart, or are more than any header has."""
    columns = [column for column in zip(*lines, strict=True) if any(column)]
    return len(set(columns)) == len(columns) or len(lines) == MOST_LEVELS


def names_a_level(cell: str) -> bool:
    """Whether the first cell of a line is the word for layers, or that for experts."""
    column = columns_of([cell])[0]
    return column.number is None and column.role in (LAYER, EXPERT)


def names_the_index(lines: Sequence[Sequence[str]], cells: Sequence[str]) -> bool:
    """Whether the line after a header names the columns of its index, and has no counts."""
    filled = [cell for cell in cells if cell]
    leads = [*cells[: len(filled)]] == filled and len(cells) in (len(filled), len(lines[0]))
    return 0 < len(filled) <= _index_width(lines) and leads and all(map(_WORD.search, filled))


def fold(lines: Sequence[Sequence[str]], index: Sequence[str], path: Path) -> list[str]:
    """Return the name of each column, from the ``lines`` of a header and the names of the ``index``, if any.

    A level whose labels are one word, ``count`` say, tells nothing and is left out.

    Raises
    ------
    FileFormatError
        If nothing says which of several levels is the layer.
    """
    first, levels = _index_width(lines), []
    for line in lines:
        level, labels = (line[0] if first else ""), list(line[first:])
        if len(set(labels)) == 1 and whole_in(labels[0]) is None:
            continue
        if names_a_level(level) and all(map(str.isdecimal, labels)):
            labels = [f"{level} {label}" for label in labels]
        levels.append(labels)
    for labels in levels if len(levels) > 1 else []:
        if {column.role for column in columns_of(labels)} not in ({LAYER}, {EXPERT}):
            raise FileFormatError(
                f"{path} has a header of {len(lines)} lines, and none says what {listed(dict.fromkeys(labels), 3)} "
                "are; name one level layer and the other expert, and keep no third."
            )
    named = [*index, *[""] * (first - len(index))][:first]
    return [*named, *(" ".join(parts) for parts in zip(*levels, strict=True))]


def _index_width(lines: Sequence[Sequence[str]]) -> int:
    """Return how many columns stand before the first that has a number in its name."""
    columns = enumerate(zip(*lines, strict=True))
    return next((i for i, column in columns if any(whole_in(cell) is not None for cell in column)), 0)
