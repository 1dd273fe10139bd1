"""Read a load from a file, told apart by content and never by its name.

The formats are a table: name, how its content is known, how it is read. The first row that matches reads;
it never hands over to a later one. A format that an engine adds is a file in this folder and a row here;
a folder can be a format too (its row looks at the path, the first bytes are then empty).
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from equipoise.arguments import as_instance, as_path
from equipoise.decode.archive import open_archive
from equipoise.decode.source import opened, reading
from equipoise.decode.torch import LEGACY
from equipoise.errors import FileFormatError
from equipoise.load.numpy_files import read_npy, read_npz
from equipoise.load.recorded_files import is_record_folder, read_record_folder
from equipoise.load.sglang_files import is_recording_folder, read_recording_folder
from equipoise.load.statistics import LoadStatistics
from equipoise.load.tensorrt_llm_files import is_statistics_folder, read_statistics_folder
from equipoise.load.text_files import read_csv, read_json
from equipoise.load.torch_files import read_torch

__all__ = ["FORMATS", "Format", "read_load"]

_HEAD = 4096  # bytes a row may look at
_BYTE_ORDER_MARK = codecs.BOM_UTF8


@dataclass(frozen=True)
class Format:
    """A row: what the format is called, how its content is known, how it is read.

    ``matches(path, head)`` sees the first bytes; ``read(path, key)`` returns a ``LoadStatistics`` or
    raises a ``FileFormatError`` that names the path and the place.
    """

    name: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Path, str | None], LoadStatistics]


def read_load(path: str | os.PathLike[str], *, key: str | None = None) -> LoadStatistics:
    """Return the load statistics in a file or folder, whatever its name.

    Parameters
    ----------
    path : path of a file, or of a folder that an engine wrote
        A .npy or .npz array, JSON (a nested list, or an object with ``logical_count``), CSV (a line a
        layer), or a torch file (a tensor, or a dict with ``logical_count``). The numbers have shape
        (layers, experts) or (steps, layers, experts); each step becomes one window. Of engines: what SGLang's
        recorder dumps (``sglang_files.py``), TensorRT-LLM's statistics (``tensorrt_llm_files.py``), and what our own
        plug-ins keep (``recorded_files.py``).
    key : str or None, default None
        Which array to read where there are several. ``None`` takes the only array of a .npz, else the one
        called ``logical_count``, ``counts`` or ``load``.

    Returns
    -------
    LoadStatistics
        Rows of zeros are kept, so layers keep their position. ``source`` is the path.

    Raises
    ------
    FileFormatError
        If the file is missing, empty, truncated, of no known format, or its numbers are ragged, wrongly
        shaped, NaN, infinite or negative. The message names the file, the place and the rule.
    InvalidInputError
        If ``path`` or ``key`` is none.

    Notes
    -----
    Any file may be given, strangers' too: none of it is run, torch is not needed to read what it wrote, and what a file
    declares is held to its size and to ``equipoise.limits`` before memory is taken. A CSV header made of numbers
    cannot be told from a layer and is read as one.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "counts"
    >>> _ = path.write_text('{"logical_count": [[5, 3], [0, 0]]}')
    >>> read_load(path).load.tolist()
    [[5.0, 3.0], [0.0, 0.0]]
    """
    path = as_path(path)
    if key is not None:
        as_instance(key, str, "key", "the name of an array, or None")
    with reading(path):
        head = _head(path)
        for row in FORMATS:
            if row.matches(path, head):
                return row.read(path, key)
    if path.is_dir():
        raise FileFormatError(f"{path} is a folder; name a file in it.")
    if head.startswith(b"\x80"):
        raise FileFormatError(
            f"{path} looks like a Python pickle, which is not loaded because unpickling runs code; "
            "save the counts with numpy.save."
        )
    known = ", ".join(row.name for row in FORMATS)
    raise FileFormatError(f"{path} starts like none of the formats that can be read: {known}.")


def _head(path: Path) -> bytes:
    """Return the first bytes of a file, none for a folder, or say why there are none."""
    if path.is_dir():
        return b""
    with opened(path) as (stream, _):
        head = stream.read(_HEAD)
    if not head.removeprefix(_BYTE_ORDER_MARK).strip():
        raise FileFormatError(f"{path} is empty; it must hold numbers of shape (layers, experts).")
    return head


def _starts_json(_: Path, head: bytes) -> bool:
    return head.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1] in (b"[", b"{")


def _is_text(_: Path, head: bytes) -> bool:
    if not head or b"\0" in head:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: the head may end inside a character
    except UnicodeDecodeError:
        return False
    return True


def _read_zip(path: Path, key: str | None) -> LoadStatistics:
    """numpy and torch both write zip files: look at what is inside."""
    with open_archive(path) as archive:
        names = archive.sizes
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return read_torch(path, key)
    if names and all(name.endswith(".npy") for name in names):
        return read_npz(path, key)
    raise FileFormatError(f"{path} is a zip file that neither numpy nor torch wrote; unpack it and name one file.")


FORMATS: tuple[Format, ...] = (
    Format(".npy", lambda _, head: head.startswith(b"\x93NUMPY"), read_npy),
    Format(".npz or torch", lambda _, head: head.startswith((b"PK\x03\x04", b"PK\x05\x06")), _read_zip),
    Format("torch before 1.6", lambda _, head: LEGACY in head[:32], read_torch),
    Format("JSON", _starts_json, read_json),
    Format("CSV", _is_text, read_csv),
    Format("a TensorRT-LLM folder", lambda path, _: is_statistics_folder(path), read_statistics_folder),
    Format("a folder of SGLang recordings", lambda path, _: is_recording_folder(path), read_recording_folder),
    Format("a folder of loads that a plug-in kept", lambda path, _: is_record_folder(path), read_record_folder),
)
