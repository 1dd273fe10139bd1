"""How much is taken: of what callers ask for, and of what a file declares, before memory is taken for it.

No model or recording that we know comes near these numbers. They are here so that a wrong or hostile one ends in a
sentence and neither in an engine without memory nor in a machine that hangs.
"""

from __future__ import annotations

__all__ = [
    "LARGEST_COLUMNS",
    "LARGEST_CSV",
    "LARGEST_DIRECTORY",
    "LARGEST_FILE",
    "LARGEST_TRACE",
    "LARGEST_INPUT",
    "LARGEST_YAML",
    "LONGEST_LINE",
    "MOST_CELLS",
    "MOST_DEPTH",
    "MOST_FILES",
    "MOST_LAYERS",
    "MOST_LOADS",
    "MOST_SLOTS",
    "MOST_VALUES",
    "ONCE_UNPACKED",
    "PARSED",
]

MOST_LAYERS = 1 << 16
"""Layers, and one more than the largest layer id: files of engines have a row for every id below it."""

MOST_SLOTS = 1 << 17
"""Slots in one layer, logical experts, and ranks."""

MOST_CELLS = 1 << 25
"""Entries of a table with a row for each layer and a column for each slot or expert."""

MOST_LOADS = 1 << 28
"""Loads over windows, layers and experts: two gigabytes of float64, and as much again while they are checked."""

LARGEST_FILE = 1 << 32
"""Bytes of a file: all of them are held while it is read."""

LARGEST_TRACE = 1 << 40
"""Bytes of a trace, which is read in pieces."""

LARGEST_LONG_CSV = 1 << 26
"""Bytes of a CSV file with a line for each count: some four million lines, which are held while it is read."""
LARGEST_COLUMNS = 1 << 28
"""Bytes of a Parquet or Arrow file."""

LARGEST_INPUT = 1 << 30
"""Bytes that are read from standard input, all of which are held."""

MOST_FILES = 1 << 16
"""Files in a folder that are read as one load."""

LARGEST_YAML = 1 << 20
"""Bytes of a YAML file: reading it takes most of a second for so many."""

PARSED = 450 << 20
"""Bytes that Python takes for a JSON document, by the estimate of ``decode/json.py``: some eight million numbers."""

LARGEST_CSV, LONGEST_LINE = 1 << 26, 1 << 22
"""Bytes of a table of text, and characters in one line of it."""

ONCE_UNPACKED = (64 << 20, 100)
"""What zip or gzip packed may unpack to so many bytes, or to so many times of what is packed, whichever is more."""

LARGEST_DIRECTORY = 4 << 20
"""Bytes of a zip file's table of contents: some fifty thousand names."""

MOST_VALUES = 1 << 20
"""Steps that build what a torch file holds beside its numbers: some ten thousand records."""

MOST_DEPTH = 16
"""Lists and objects inside each other in a torch file."""
