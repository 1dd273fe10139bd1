"""Loads in text: JSON, and tables with commas, semicolons, tabs or blanks between the cells."""

from __future__ import annotations

from pathlib import Path

from equipoise.decode.json import decode_json
from equipoise.decode.lines import open_lines
from equipoise.errors import FileFormatError
from equipoise.load.long_tables import LongRows
from equipoise.load.records import from_json
from equipoise.load.statistics import LoadStatistics
from equipoise.load.text_tables import TextTable

__all__ = ["read_csv", "read_json", "read_long_csv"]

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
    with open_lines(path) as lines:
        if lines.first.lstrip().startswith(_BALANCER):
            raise FileFormatError(
                f"{path} is a placement, the load balancer's configuration of TensorRT-LLM, and a load is asked for: "
                "tokens per layer and expert."
            )
        table = TextTable(path, key, lines.delimiter)
        for number, cells in lines.cells():
            table.add(cells, number, lines.remark)
    return table
