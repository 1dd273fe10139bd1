"""safetensors: eight bytes that say how long the header is, the header as JSON, and the numbers that it describes.

{"name": {"dtype": "I64", "shape": [4], "data_offsets": [0, 32]}, ..., "__metadata__": {...}}
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.decode.json import parse_json
from equipoise.decode.source import read_bytes
from equipoise.errors import FileFormatError, shown

__all__ = ["decode_safetensors"]

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def decode_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays in a .safetensors file by name, read-only.

    Raises
    ------
    FileFormatError
        If the header is not as the format has it, or describes other bytes than follow it: every byte is part of one
        array.
    """
    content = read_bytes(path)
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise FileFormatError(
            f"{path} is truncated or damaged: its header does not fit into it. Copy or write it again."
        )
    header = parse_json(content[8 : 8 + length], f"{path}: the header")
    if not isinstance(header, dict):
        raise FileFormatError(f"{path} is damaged: its header is {shown(header)}. Copy or write it again.")
    data = memoryview(content)[8 + length :]
    arrays = {name: _array(entry, data, path, name) for name, entry in header.items() if name != "__metadata__"}
    if sum(array.nbytes for array in arrays.values()) != len(data):
        raise FileFormatError(f"{path} is truncated or damaged: its arrays do not fill it. Copy or write it again.")
    return arrays


def _array(entry: Any, data: memoryview, path: Path, name: str) -> NDArray[Any]:
    known = entry if isinstance(entry, dict) else {}
    dtype, shape, place = known.get("dtype"), known.get("shape", ""), known.get("data_offsets", "")
    if isinstance(dtype, str) and dtype in DTYPES and _are_whole(shape) and _are_whole(place) and len(place) == 2:
        (begin, end), kind = place, np.dtype(DTYPES[dtype])
        if begin <= end <= len(data) and math.prod(shape) * kind.itemsize == end - begin:
            with suppress(ValueError):  # of an empty array, an axis may be longer than numpy counts
                array: NDArray[Any] = np.frombuffer(data[begin:end], kind).reshape(shape)
                return array
    raise FileFormatError(f"{path} is truncated or damaged: {shown(name)} is {shown(entry)}. Copy or write it again.")


def _are_whole(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)
