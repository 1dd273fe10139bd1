"""safetensors: eight bytes that say how long the header is, the header as JSON, and the numbers that it describes.

{"name": {"dtype": "I64", "shape": [4], "data_offsets": [0, 32]}, ..., "__metadata__": {...}}
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.decode.json import parse_json
from equipoise.decode.source import opened
from equipoise.errors import FileFormatError, shown

__all__ = ["decode_safetensors"]

Look = Callable[[str, tuple[int, ...], np.dtype[Any]], None]

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def decode_safetensors(path: Path, look: Look = lambda name, shape, dtype: None) -> dict[str, NDArray[Any]]:
    """Return the arrays in a .safetensors file by name, read-only.

    ``look(name, shape, dtype)`` is asked of each before memory is taken for them, and raises where it is not wanted.

    Raises
    ------
    FileFormatError
        If the header is not as the format has it, or describes other bytes than follow it: every byte is part of one
        array.
    """
    with opened(path) as (stream, size):
        start = stream.read(8)
        length, left = int.from_bytes(start, "little"), size - 8
        if len(start) < 8 or length > left:
            raise FileFormatError(
                f"{path} is truncated or damaged: its header does not fit into it. Copy or write it again."
            )
        header, left = parse_json(stream.read(length), f"{path}: the header"), left - length
        if not isinstance(header, dict):
            raise FileFormatError(f"{path} is damaged: its header is {shown(header)}. Copy or write it again.")
        entries = {name: _entry(value, left, path, name) for name, value in header.items() if name != "__metadata__"}
        for name, entry in entries.items():
            look(name, entry.shape, entry.dtype)
        if sum(entry.end - entry.begin for entry in entries.values()) != left:
            raise FileFormatError(f"{path} is truncated or damaged: its arrays do not fill it. Copy or write it again.")
        data = memoryview(stream.read(left))
    return {name: _array(entry, data, path, name) for name, entry in entries.items()}


class Entry(NamedTuple):
    """An array as the header has it; it begins and ends at these bytes of what follows."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    begin: int
    end: int


def _entry(value: Any, size: int, path: Path, name: str) -> Entry:
    known = value if isinstance(value, dict) else {}
    dtype, shape, place = known.get("dtype"), known.get("shape", ""), known.get("data_offsets", "")
    if isinstance(dtype, str) and dtype in DTYPES and _are_whole(shape) and _are_whole(place) and len(place) == 2:
        (begin, end), kind = place, np.dtype(DTYPES[dtype])
        if begin <= end <= size and math.prod(shape) * kind.itemsize == end - begin:
            return Entry(tuple(shape), kind, begin, end)
    raise _damaged(path, name, value)


def _array(entry: Entry, data: memoryview, path: Path, name: str) -> NDArray[Any]:
    try:
        return np.frombuffer(data[entry.begin : entry.end], entry.dtype).reshape(entry.shape)
    except ValueError:  # it was cut meanwhile, or of an empty array an axis may be longer than numpy counts
        raise _damaged(path, name, entry.shape) from None


def _damaged(path: Path, name: str, value: Any) -> FileFormatError:
    return FileFormatError(f"{path} is truncated or damaged: {shown(name)} is {shown(value)}. Copy or write it again.")


def _are_whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
