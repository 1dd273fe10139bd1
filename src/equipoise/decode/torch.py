"""torch's files, read with numpy: torch need not be there, and in no version of it does anything run that a file names.

    counts.pt    a zip file: archive/data.pkl, what was saved, and archive/data/<key>, the bytes of each storage
    before 1.6   five pickles (a number that says so, the version, the machine, what was saved, the keys of the
                 storages), then for each key how many numbers it has, and their bytes

A tensor is a view of a storage: where it begins, its shape, and how far apart the entries of each axis are. It can be
larger than what it looks at, in a stranger's file by any factor, so it is held to the bytes behind it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.decode.archive import open_archive
from equipoise.decode.numpy import LARGE, read_rows
from equipoise.decode.pickle import Unpickler
from equipoise.decode.source import opened
from equipoise.errors import FileFormatError, shown
from equipoise.limits import MOST_DEPTH, MOST_VALUES

__all__ = ["LEGACY", "Rows", "Tensor", "decode_torch", "outline_torch"]

Rows = Callable[["Tensor"], Iterator[NDArray[Any]]]
Look = Callable[[Any, Rows], None]

# What a file from before 1.6 starts with, after the signs of a pickle.
LEGACY = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
DAMAGED = "is truncated or damaged. Copy or write it again."


@dataclass(frozen=True)
class Type:
    """The numbers of a storage, by numpy's name; bfloat16 has none, and its bits are half of those of a float32."""

    name: str
    is_bfloat16: bool = False


@dataclass(frozen=True)
class Storage:
    """Numbers that are kept beside the pickle."""

    key: str | int
    type: Type


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    type: Type

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""
        return np.dtype(np.float32 if self.type.is_bfloat16 else self.type.name)

    def is_all_of(self, size: int) -> bool:
        """Whether its rows are, one after the other, the ``size`` bytes of its storage."""
        whole, behind = math.prod(self.shape), [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        plain = self.offset == 0 and list(self.strides) == behind and not self.type.is_bfloat16
        return plain and whole * self.dtype.itemsize == size

    def view(self, content: bytes, order: str) -> NDArray[Any]:
        """Return the array that it is of the bytes of its storage, without a copy but for bfloat16."""
        dtype = np.dtype(order + self.type.name)
        if math.prod(self.shape) * dtype.itemsize > len(content):
            raise FileFormatError(
                f"a tensor of shape {shown(self.shape)} is larger than the {len(content)} bytes behind it"
            )
        strides = tuple(stride * dtype.itemsize for stride in self.strides)
        array: NDArray[Any] = np.ndarray(self.shape, dtype, content, self.offset * dtype.itemsize, strides)
        return (array.astype(np.uint32) << 16).view(np.float32) if self.type.is_bfloat16 else array


def _tensor(storage: Storage, offset: int, shape: Any, strides: Any, _: Any, __: Any, *more: Any) -> Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers) or len(shape) > 32:
        raise TypeError
    type_ = next((value for value in more if isinstance(value, Type)), storage.type)
    return Tensor(storage, offset, tuple(shape), tuple(strides), type_)


def _parameter(data: Tensor, _: Any, __: Any) -> Tensor:
    return data


STORAGES = {
    "Double": "f8", "Float": "f4", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2",
    "Char": "i1", "Byte": "u1", "Bool": "?", "ComplexFloat": "c8", "ComplexDouble": "c16",
}  # fmt: skip
DTYPES = {
    "float64": "f8", "float32": "f4", "float16": "f2", "int64": "i8", "int32": "i4",
    "int16": "i2", "int8": "i1", "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1", "bool": "?",
    "complex64": "c8", "complex128": "c16",
}  # fmt: skip
NAMES: dict[str, Any] = {
    "collections.OrderedDict": lambda: dict(),  # noqa: C408  # with arguments, it would copy a dict at will
    "torch.Size": lambda numbers: numbers,
    "torch.device": lambda *name: name,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage.UntypedStorage": Type("u1"),
    "torch.BFloat16Storage": Type("u2", is_bfloat16=True),
    "torch.bfloat16": Type("u2", is_bfloat16=True),
    **{f"torch.{name}Storage": Type(numpy) for name, numpy in STORAGES.items()},
    **{f"torch.{name}": Type(numpy) for name, numpy in DTYPES.items()},
}
"""All that a file may name, and what it stands for: sparse, quantised and other tensors are none of a load's."""


def decode_torch(path: Path, look: Look = lambda document, rows: None) -> Any:
    """Return what a .pt file holds, with arrays for its tensors.

    ``look(document, rows)`` is asked before memory is taken for the numbers, with a ``Tensor`` in place of each array,
    and raises where that is not what is wanted. ``rows(tensor)`` yields the rows of a large one, some at a time; of
    another, and of one that is only a part of what was saved with it, nothing.

    Raises
    ------
    FileFormatError
        If it is damaged, or holds more than dense tensors, numbers, texts, lists, tuples and dicts.
    """
    with opened(path) as (stream, size):
        if stream.read(2) != b"PK":
            stream.seek(0)
            return _decode_legacy(stream, size, str(path), look)
    return _decode_zip(path, size, look)


def outline_torch(path: Path) -> Any:
    """Return what a .pt file holds, with a ``Tensor`` for each array: its numbers are not read. Errors are the same."""
    found: list[Any] = []

    def look(document: Any, rows: Rows) -> None:
        """Take the document, and read no further."""
        found.append(document)
        raise _EnoughError

    with suppress(_EnoughError):
        decode_torch(path, look)
    return found[0]


class _EnoughError(Exception):
    """What was asked for is known."""


def _decode_zip(path: Path, size: int, look: Look) -> Any:
    with open_archive(path) as archive:
        mains = [name for name in archive.sizes if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(mains) != 1:
            raise FileFormatError(f"{path} holds {len(mains)} files data.pkl, and torch writes one. Write it again.")
        folder = mains[0].removesuffix("data.pkl")

        def read(name: str) -> bytes:
            """Read a member of the archive."""
            where = f"{path}: {shown(name)[1:-1]}"
            if name not in archive.sizes:
                raise FileFormatError(f"{where} is missing; the file is damaged. Copy or write it again.")
            with archive.open(name, where, packed=False) as stream:
                return stream.read()

        content = read(mains[0])
        document = _unpickler(io.BytesIO(content), len(content), size, str(path)).load()
        big = f"{folder}byteorder" in archive.sizes and read(f"{folder}byteorder") == b"big"
        order = ">" if big else "<"

        def rows(tensor: Tensor) -> Iterator[NDArray[Any]]:
            """Yield the rows of a large tensor, some at a time."""
            name = f"{folder}data/{tensor.storage.key}"
            if archive.sizes.get(name, 0) > LARGE and tensor.is_all_of(archive.sizes[name]):
                where = f"{path}: {shown(name)[1:-1]}"
                with archive.open(name, where, packed=False) as stream:
                    yield from read_rows(stream, tensor.shape, np.dtype(order + tensor.type.name), where)

        look(document, rows)
        return Plain(str(path), size, lambda key: read(f"{folder}data/{key}"), order).of(document)


def _decode_legacy(stream: IO[bytes], size: int, name: str, look: Look) -> Any:
    begin = stream.read(32)
    if LEGACY not in begin:
        raise FileFormatError(f"{name} was not written by torch.save.")
    stream.seek(begin.index(LEGACY) + len(LEGACY) + 1)
    types: dict[str | int, Type] = {}
    unpickler = _unpickler(stream, size, size, name, types)
    _, machine, document, keys = (unpickler.load() for _ in range(4))
    look(document, lambda tensor: iter(()))
    big = isinstance(machine, dict) and machine.get("little_endian") is False
    contents: dict[str | int, bytes] = {}
    try:
        for key in keys:
            number = int.from_bytes(unpickler.take(8), "little")
            contents[key] = unpickler.take(number * np.dtype(types[key].name).itemsize)
        return Plain(name, size, contents.__getitem__, ">" if big else "<").of(document)
    except (EOFError, KeyError, TypeError) as error:  # a storage is cut off, or has no key
        raise FileFormatError(f"{name} {DAMAGED}") from error


def _unpickler(
    stream: IO[bytes], length: int, size: int, name: str, types: dict[str | int, Type] | None = None
) -> Unpickler:
    """Return what reads the pickles of a file of ``size`` bytes; ``types`` collects those of the storages it meets."""

    def storage(description: Any) -> Storage:
        """Return the storage that a persistent id names."""
        kind, type_, key, *_ = description
        if kind != "storage" or not isinstance(type_, Type) or type(key) not in (str, int):
            raise TypeError
        if types is not None:
            types[key] = type_
        return Storage(key, type_)

    return Unpickler(stream, length, name, NAMES, storage, MOST_VALUES + size // STEP)


STEP = 256  # bytes of a file for which one step more is made: what comes with a recording grows with it
SPARE = 1 << 20  # bytes beyond those of the file that tensors and lists that share theirs may come to


@dataclass
class Plain:
    """Makes plain values of what a pickle has built, each as often as it is there: no more than the file could hold.

    A list that is in another one ten times is ten lists to whoever reads it, so nine lines can be a billion.
    """

    name: str
    size: int
    read: Callable[[Any], bytes]
    order: str

    def __post_init__(self) -> None:
        self.contents: dict[Any, bytes] = {}
        self.values_left = MOST_VALUES + self.size // STEP
        self.bytes_left = 2 * self.size + SPARE

    def of(self, value: Any, depth: int = 0) -> Any:
        """Return ``value`` with an array for each tensor.

        Raises
        ------
        FileFormatError
            If it is too much, nests too deeply, or a tensor looks at what is not there.
        """
        self.values_left -= 1
        if depth > MOST_DEPTH:
            raise FileFormatError(f"{self.name} nests lists too deeply; three levels are the most for a load.")
        if self.values_left < 0 or self.bytes_left < 0:
            raise FileFormatError(
                f"{self.name} is far larger written out than it is, because its parts share; save copies."
            )
        if isinstance(value, Tensor):
            return self._array(value)
        if isinstance(value, dict):
            return {key: self.of(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.of(item, depth + 1) for item in value)
        return value

    def _array(self, tensor: Tensor) -> NDArray[Any]:
        key = tensor.storage.key
        if key not in self.contents:
            self.contents[key] = self.read(key)
        try:
            array = tensor.view(self.contents[key], self.order)
        except FileFormatError as error:
            raise FileFormatError(f"{self.name}: {error}; save a copy: torch.save(counts.clone(), path).") from None
        except Exception as error:  # numpy raises various errors for views of what is not there
            raise FileFormatError(f"{self.name} {DAMAGED}") from error
        self.bytes_left -= array.nbytes
        return array
