"""What a command is given as LOADS: a file, several, folders, or standard input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.cli.console import progress

if TYPE_CHECKING:
    from equipoise.load import LoadStatistics

__all__ = ["read_loads", "summed"]


def read_loads(paths: list[Path], key: str | None) -> LoadStatistics:
    """Return the load in the files that were named, their steps one after the other."""
    from equipoise.load import read_load

    with progress("reading"):
        return read_load(paths[0] if len(paths) == 1 else paths, key=key)


def summed(statistics: LoadStatistics) -> str:
    """Return what to say of the steps of a load, nothing where there is one."""
    return f", {statistics.num_windows} steps summed" if statistics.num_windows > 1 else ""
