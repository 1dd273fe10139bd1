"""numpy's own files: one array, whose header is held to the bytes that follow it before memory is taken."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from equipoise.decode.source import opened
from equipoise.errors import FileFormatError, shown

__all__ = ["LARGE", "Look", "check_length", "decode_npy", "look_through", "read_array", "read_header", "read_rows"]

AT_ONCE = 1 << 24  # bytes of some rows, at least one row
LARGE = 1 << 26  # bytes

LONGEST_HEADER = 10_000  # bytes; numpy parses no longer one, but would read it


class Look(NamedTuple):
    """What an array must be, for whoever asks for it; each raises if it is not.

    ``declared`` is asked of shape and type before memory is taken, and so is ``parts`` of what a large one holds, some
    rows at a time in their order.
    """

    declared: Callable[[tuple[int, ...], np.dtype[Any]], None]
    parts: Callable[[Iterator[NDArray[Any]]], None] | None = None


def decode_npy(path: Path, look: Look | None = None) -> NDArray[Any]:
    """Return the array in a .npy file, or a ``FileFormatError`` that says how it is damaged."""
    with opened(path) as (stream, size):
        if look is not None:
            look_through(stream, size, str(path), look)
            stream.seek(0)
        return read_array(stream, size, str(path))


def look_through(stream: IO[bytes], num_bytes: int, name: str, look: Look) -> None:
    """Look at the array that ``stream`` holds, as ``read_array`` would read it, without taking memory for it."""
    shape, fortran_order, dtype, _ = _checked_header(stream, num_bytes, name)
    look.declared(shape, dtype)
    if look.parts is not None and num_bytes > LARGE and not fortran_order:
        look.parts(read_rows(stream, shape, dtype, name))


def read_array(stream: IO[bytes], num_bytes: int, name: str) -> NDArray[Any]:
    """Return the array of numbers that ``stream`` holds in ``num_bytes`` bytes, read-only.

    Raises
    ------
    FileFormatError
        If the header is damaged, describes no plain array of numbers, or promises other than so many bytes hold.
        Pickled objects are refused, never run.
    """
    shape, fortran_order, dtype, promised = _checked_header(stream, num_bytes, name)
    content = stream.read(promised)
    if len(content) < promised:
        raise FileFormatError(f"{name} is truncated; copy or write the file again.")
    try:
        return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran_order else "C")
    except ValueError:  # of an empty array, an axis may be longer than numpy counts
        raise FileFormatError(
            f"{name} has the shape {shown(shape)}, which no array has; write the file again."
        ) from None


def read_rows(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array whose header has been read, as arrays of some rows each.

    Raises
    ------
    FileFormatError
        If the stream ends before.
    """
    row = math.prod(shape[1:]) * dtype.itemsize
    at_once, left = max(1, AT_ONCE // max(row, 1)), shape[0]
    while left:
        number = min(at_once, left)
        content = stream.read(number * row)
        if len(content) < number * row:
            raise FileFormatError(f"{name} is truncated; copy or write the file again.")
        yield np.frombuffer(content, dtype).reshape(number, *shape[1:])
        left -= number


def _checked_header(stream: IO[bytes], num_bytes: int, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, order, type and bytes of an array, once they are those of a plain array of numbers."""
    shape, fortran_order, dtype, length = read_header(stream, name)
    if dtype.hasobject:
        raise FileFormatError(
            f"{name} holds Python objects, which are not loaded because unpickling runs code; "
            "save a plain array of numbers."
        )
    if dtype.kind not in "biuf":
        raise FileFormatError(f"{name} holds {shown(str(dtype))[1:-1]} values; it must hold integers or floats.")
    if len(shape) > 32 or min(shape, default=0) < 0:
        raise FileFormatError(f"{name} has the shape {shown(shape)}, which no array has; write the file again.")
    return shape, fortran_order, dtype, check_length(name, shape, dtype, num_bytes - length)


def check_length(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], there: int) -> int:
    """Return how many bytes an array takes, or say that not just so many are ``there`` after its header."""
    promised = math.prod(shape) * dtype.itemsize
    if there != promised:
        what = "is truncated" if there < promised else "has bytes left over"
        raise FileFormatError(
            f"{name} {what}: its header promises shape {shown(shape)} of {dtype}, {shown(promised)} bytes, "
            f"and {there} follow. Copy or write the file again."
        )
    return promised


def read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, order, type, and how many bytes said so."""
    start = stream.read(npy.MAGIC_LEN)
    field = stream.read(2 if start[6:] == b"\1\0" else 4)
    length = int.from_bytes(field, "little")
    header = stream.read(min(length, LONGEST_HEADER))
    try:
        version = npy.read_magic(io.BytesIO(start))
        # Version 3 differs from 2 only in the names of record fields, which no load has.
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(io.BytesIO(field + header))
    except Exception as error:  # numpy parses the header as Python source, which damaged can raise anything
        raise FileFormatError(f"{name} has a damaged or truncated .npy header; write the file again.") from error
    return tuple(map(int, shape)), fortran_order, dtype, len(start) + len(field) + length
