"""What a command is given as LOADS: a file, several, folders, or standard input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.cli.console import progress

if TYPE_CHECKING:
    from equipoise.load import LoadStatistics
    from equipoise.traces.trace import Trace

__all__ = ["read_loads", "read_trace", "summed"]

LARGE = 1 << 25  # bytes of a file that is read in pieces


def read_loads(paths: list[Path], key: str | None) -> LoadStatistics:
    """Return the load in the files that were named, their steps one after the other."""
    from equipoise.load import read_load

    with progress("reading"):
        return read_load(paths[0] if len(paths) == 1 else paths, key=key)


def read_trace(paths: list[Path], key: str | None) -> Trace:
    """Return the steps in the files that were named; of one large file in pieces, as they are gone through."""
    from equipoise.traces.trace import Trace

    if len(paths) == 1 and paths[0].is_file() and paths[0].stat().st_size > LARGE:
        return Trace.read(paths[0], key=key)
    return Trace(read_loads(paths, key))


def summed(num_windows: int) -> str:
    """Return what to say of the steps of a load, nothing where there is one."""
    return f", {num_windows} steps summed" if num_windows > 1 else ""
