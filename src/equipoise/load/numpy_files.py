"""Loads in numpy's own files: .npy holds one array, .npz several under their keys."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from equipoise.errors import FileFormatError
from equipoise.load.documents import choose_key, from_array, no_keys
from equipoise.load.statistics import LoadStatistics

__all__ = ["decode_npy", "read_npy", "read_npz"]


def read_npy(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a .npy file. Pickled objects are refused, never run."""
    if key is not None:
        raise no_keys(path, key)
    return from_array(decode_npy(path), path)


def decode_npy(path: Path) -> NDArray[Any]:
    """Return the array in a .npy file, or a ``FileFormatError`` that says how it is damaged."""
    with path.open("rb") as stream:
        return _read_array(stream, path.stat().st_size, str(path))


def read_npz(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a .npz file: the only array in it, else the one that ``COUNT_KEYS`` or ``key`` names."""
    with zipfile.ZipFile(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist()]
        chosen = keys[0] if key is None and len(keys) == 1 else choose_key(keys, key, path)
        where = f"{path}: {chosen}"
        try:
            with archive.open(f"{chosen}.npy") as stream:
                content = stream.read()
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise FileFormatError(f"{where} is damaged; copy or write the file again.") from error
        except (NotImplementedError, RuntimeError) as error:  # another compression, or a password
            raise FileFormatError(f"{where} is packed in a way numpy does not write; use numpy.savez.") from error
    return from_array(_read_array(io.BytesIO(content), len(content), where), path, chosen)


def _read_array(stream: IO[bytes], num_bytes: int, where: str) -> NDArray[Any]:
    """Read one array after holding its header to the bytes that follow it.

    numpy would allocate what the header asks for, which in a damaged file can be anything.
    """
    try:
        version = npy.read_magic(stream)
        # Version 3 differs from 2 only in the names of record fields, which no load has.
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
    except Exception as error:  # numpy parses the header as Python source, which damaged can raise anything
        raise FileFormatError(f"{where} has a damaged or truncated .npy header; write the file again.") from error
    if dtype.hasobject:
        raise FileFormatError(
            f"{where} holds Python objects, which are not loaded because unpickling runs code; "
            "save a plain array of numbers."
        )
    if dtype.kind not in "biuf":
        raise FileFormatError(f"{where} holds {dtype} values; it must hold integers or floats.")
    promised, there = math.prod(shape) * dtype.itemsize, num_bytes - stream.tell()
    if there != promised:
        what = "is truncated" if there < promised else "has bytes left over"
        raise FileFormatError(
            f"{where} {what}: its header promises shape {shape} of {dtype}, {promised} bytes, "
            f"and {there} follow. Copy or write the file again."
        )
    array = np.frombuffer(stream.read(promised), dtype=dtype)
    return array.reshape(shape, order="F" if fortran_order else "C")
