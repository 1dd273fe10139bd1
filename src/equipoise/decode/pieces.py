"""Arrays that are larger than memory: .npy files and members of .npz files, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.decode.archive import open_archive
from equipoise.decode.numpy import check_length, read_header, read_rows
from equipoise.decode.source import opened
from equipoise.errors import shown
from equipoise.limits import LARGEST_TRACE

__all__ = ["Rows", "npy_rows", "npz_rows"]


@dataclass(frozen=True)
class Rows:
    """An array in a file: what its header promises, and how to go through its rows.

    ``key`` names the member of a .npz file; None for a .npy file.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    key: str | None = None

    def pieces(self) -> Iterator[NDArray[Any]]:
        """Yield the rows in order, as arrays of some rows each.

        Raises
        ------
        FileFormatError
            If the file is no longer what its header promised.
        """
        if self.key is None:
            with opened(self.path, LARGEST_TRACE) as (stream, _):
                read_header(stream, str(self.path))
                yield from read_rows(stream, self.shape, self.dtype, str(self.path))
        else:
            where = f"{self.path}: {shown(self.key)[1:-1]}"
            with open_archive(self.path, LARGEST_TRACE) as archive, archive.open(f"{self.key}.npy", where) as stream:
                read_header(stream, where)
                yield from read_rows(stream, self.shape, self.dtype, where)
                stream.read(1)  # at the end, the checksum is looked at


def npy_rows(path: Path) -> Rows | None:
    """Return the array in a .npy file, to be read in pieces; None if its rows do not lie one after the other."""
    with opened(path, LARGEST_TRACE) as (stream, size):
        return _rows(stream, size, path, str(path), None)


def npz_rows(path: Path, key: str) -> Rows | None:
    """Return the array called ``key`` in a .npz file, as ``npy_rows`` does; None also if there is none."""
    with open_archive(path, LARGEST_TRACE) as archive:
        member = f"{key}.npy"
        if member not in archive.sizes:
            return None
        where = f"{path}: {shown(key)[1:-1]}"
        with archive.open(member, where) as stream:
            return _rows(stream, archive.sizes[member], path, where, key)


def _rows(stream: IO[bytes], size: int, path: Path, where: str, key: str | None) -> Rows | None:
    shape, fortran_order, dtype, length = read_header(stream, where)
    plain = dtype.kind in "biuf" and not dtype.hasobject and 1 <= len(shape) <= 32 and min(shape) > 0
    if not plain or fortran_order:
        return None
    check_length(where, shape, dtype, size - length)
    return Rows(path, shape, dtype, key)
