"""Loads that a plug-in kept while an engine ran: a folder with a .npz file for each window.

    load-58x256-rank0-01764162896123456789.npz        layers x experts, who wrote it, nanoseconds since 1970

====================  ===========================================================================================
array                 value
====================  ===========================================================================================
load                  int64 or float64 [layers, experts]: tokens of the window, as the engine passed them
physical_to_logical   int32 [layers, slots]: the expert in each slot while they were counted; [0, 0] if not known
asked                 int64 [4]: slots, expert groups, nodes and ranks that the engine asked for
time                  float64: seconds since 1970 when the window ended
====================  ===========================================================================================

The files of one kind, the same layers, experts and writer, are the windows of one load, in the order of their times.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import FileFormatError, shown
from equipoise.load.numpy_files import read_npz
from equipoise.load.statistics import LoadStatistics

__all__ = ["is_record_folder", "name_of", "names_like", "read_record_folder", "to_bytes"]

NAME = re.compile(r"load-(\d+x\d+-rank\d+)-\d{20}\.npz")


def name_of(shape: tuple[int, ...], rank: int, nanoseconds: int) -> str:
    """Return the name of the file of a window."""
    return f"load-{shape[0]}x{shape[1]}-rank{rank}-{nanoseconds:020d}.npz"


def names_like(folder: Path, name: str) -> list[str]:
    """Return the names in ``folder`` of the same kind as ``name``, the oldest first."""
    found = NAME.fullmatch(name)
    return _by_kind(folder).get(found[1], []) if found else []


def to_bytes(
    load: NDArray[np.float64], held: NDArray[np.int32] | None, asked: tuple[int, int, int, int], nanoseconds: int
) -> bytes:
    """Return the content of the file of a window."""
    whole = load.astype(np.int64) if load.max() < 2**53 else load
    stream = io.BytesIO()
    np.savez(
        stream,
        load=whole if np.array_equal(whole, load) else load,
        physical_to_logical=np.empty((0, 0), np.int32) if held is None else held,
        asked=np.array(asked, dtype=np.int64),
        time=np.array(nanoseconds / 1e9),
    )
    return stream.getvalue()


def is_record_folder(path: Path) -> bool:
    """Whether ``path`` is a folder with at least one recorded window."""
    return path.is_dir() and bool(_by_kind(path))


def read_record_folder(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the windows of one kind as one load; ``key`` names the kind, 58x256-rank0 say, where there are several.

    Raises
    ------
    FileFormatError
        If there are several kinds and none is named, or a file is damaged.
    """
    kinds = _by_kind(path)
    listed = ", ".join(sorted(kinds))
    if key is None and len(kinds) > 1:
        raise FileFormatError(f"{path} holds the loads of several models or writers: {listed}. Name one as key.")
    chosen = next(iter(kinds)) if key is None else key
    if chosen not in kinds:
        raise FileFormatError(f"{path} holds no load {shown(chosen)}; it holds {listed}.")
    windows = [_read(path / name) for name in kinds[chosen]]
    expected = tuple(int(number) for number in chosen.split("-")[0].split("x"))
    for name, window in zip(kinds[chosen], windows, strict=True):
        if window.tokens_per_expert.shape != (1, *expected):
            raise FileFormatError(
                f"{path / name} holds shape {window.tokens_per_expert.shape[1:]}, and its name says {expected}; "
                "remove it."
            )
    return LoadStatistics(np.concatenate([window.tokens_per_expert for window in windows]), str(path))


def _read(path: Path) -> LoadStatistics:
    try:
        return read_npz(path, "load")
    except zipfile.BadZipFile:
        raise FileFormatError(f"{path} is truncated or damaged; remove it.") from None


def _by_kind(folder: Path) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for name in sorted(entry.name for entry in folder.iterdir()):
        found = NAME.fullmatch(name)
        if found:
            kinds.setdefault(found[1], []).append(name)
    return kinds
