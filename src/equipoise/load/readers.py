"""Read a load from a file, told apart by content and never by its name.

The formats are a table: name, how its content is known, how it is read. The first row that matches reads;
it never hands over to a later one. A format that an engine adds is a file in this folder and a row here;
a folder can be a format too (its row looks at the path, the first bytes are then empty).
"""

from __future__ import annotations

import codecs
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.arguments import as_instance, as_path, flag
from equipoise.decode.archive import open_archive
from equipoise.decode.columns import ARROW, PARQUET
from equipoise.decode.source import opened, reading
from equipoise.decode.torch import LEGACY
from equipoise.errors import FileFormatError
from equipoise.load.column_files import read_columns
from equipoise.load.doubts import doubts_about, refuse_placement
from equipoise.load.folders import is_folder_of_files, joined, read_folder
from equipoise.load.numpy_files import read_npy, read_npz
from equipoise.load.recorded_files import is_record_folder, read_record_folder
from equipoise.load.sglang_files import is_recording_folder, read_recording_folder
from equipoise.load.statistics import LoadStatistics
from equipoise.load.tensorrt_llm_files import META, is_statistics_folder, read_statistics_folder
from equipoise.load.text_files import read_csv, read_json
from equipoise.load.torch_files import read_torch

__all__ = ["FORMATS", "Format", "is_text", "read_load"]

log = logging.getLogger("equipoise")
PACKERS = {b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
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


def read_load(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    key: str | None = None,
    may_be_placement: bool = False,
) -> LoadStatistics:
    """Return the load statistics in a file, a folder, or several of them, whatever their names.

    Parameters
    ----------
    path : path of a file, or of a folder that an engine wrote, or a list of such
        A .npy or .npz array, JSON or JSON Lines (a nested list, an object with ``logical_count``, or records; see
        ``records.py``), a torch file (a tensor, or a dict with ``logical_count``): numbers of shape (layers, experts)
        or (steps, layers, experts), a step a window.
        A table in text, with commas, semicolons, tabs or blanks, or in Parquet or Arrow where pyarrow is installed: a
        line a layer and a column an expert, or a line for each layer and expert, with names as in
        ``layer_id,expert_id,count`` and perhaps ``step``; see ``tables.py``. Of engines: what SGLang's recorder dumps,
        one file or a folder (``sglang_files.py``), TensorRT-LLM's statistics (``tensorrt_llm_files.py``), and what our
        own plug-ins keep (``recorded_files.py``). Any of them may be packed by gzip. ``-`` is standard input. Several
        files, or those of another folder, are joined in their order, their windows one after the other.
    key : str or None, default None
        Which array to read where there are several, or which column of counts. ``None`` takes the only array of a
        .npz, else the one called ``logical_count``, ``counts`` or ``load``.
    may_be_placement : bool, default False
        Read as a load what could as well be a placement, such as steps of single tokens, all of them 0 and 1.

    Returns
    -------
    LoadStatistics
        Rows of zeros are kept, so layers keep their position. ``source`` is the path.

    Raises
    ------
    FileFormatError
        If a file is missing, empty, truncated, of no known format, a placement, or its numbers are ragged, wrongly
        shaped, NaN, infinite or negative. The message names the file, the place and the rule.
    InvalidInputError
        If ``path`` or ``key`` is none.
    MissingDependencyError
        If it is a Parquet or Arrow file, and pyarrow is not installed.

    Notes
    -----
    Any file may be given, strangers' too: none of it is run, torch is not needed to read what it wrote, and what a file
    declares is held to its size and to ``equipoise.limits`` before memory is taken. What is read but looks odd, axes
    in another order for instance, is named by the logger ``equipoise`` as a warning.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "counts"
    >>> _ = path.write_text('{"logical_count": [[5, 3], [0, 0]]}')
    >>> read_load(path).load.tolist()
    [[5.0, 3.0], [0.0, 0.0]]
    >>> _ = path.write_text("layer,expert,count\\n3,0,5\\n3,1,3\\n")
    >>> read_load(path).load.tolist(), read_load(path).layer_ids
    ([[5.0, 3.0]], (3,))
    """
    if key is not None:
        as_instance(key, str, "key", "the name of an array, or None")
    flag(may_be_placement, "may_be_placement")
    if isinstance(path, list | tuple) and path:
        paths = [as_path(each) for each in path]
        twice = next((each for i, each in enumerate(paths) if each in paths[:i]), None)
        if twice is not None:
            raise FileFormatError(f"{twice} is named twice, and its steps would count twice; name it once.")
        loads = [_read_one(each, key) for each in paths]
        load = joined(loads, ", ".join(map(str, paths)))
    else:
        load = _read_one(as_path(path), key)
    if not may_be_placement:
        refuse_placement(load)
    for doubt in doubts_about(load):
        log.warning("%s", doubt)
    return load


def _read_one(path: Path, key: str | None) -> LoadStatistics:
    with reading(path):
        head = _head(path)
        packer = next((name for sign, name in PACKERS.items() if head.startswith(sign)), None)
        if packer is not None:
            raise FileFormatError(f"{path} is packed by {packer}; unpack it first.")
        for row in FORMATS:
            if row.matches(path, head):
                return row.read(path, key)
        if path.is_dir():
            ranks = any(path.glob("rank*.safetensors"))
            why = f" TensorRT-LLM's statistics need {META} beside their ranks." if ranks else ""
            raise FileFormatError(f"{path} is a folder; name a file in it.{why}")
    if head.startswith(b"\x80"):
        raise FileFormatError(
            f"{path} looks like a Python pickle, which is not loaded because unpickling runs code; "
            "save the counts with numpy.save."
        )
    if head[8:10] == b'{"':
        raise FileFormatError(
            f"{path} is a safetensors file; name the folder of TensorRT-LLM's statistics, with {META} in it, or save "
            "the counts with numpy.save."
        )
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FileFormatError(f"{path} is UTF-16 text; save it as UTF-8.")
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


def is_text(_: Path, head: bytes) -> bool:
    """Whether a file begins with text in UTF-8: a table, where it is not JSON."""
    if not head or b"\0" in head:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: the head may end inside a character
    except UnicodeDecodeError:
        return False
    return True


def _read_folder(path: Path, key: str | None) -> LoadStatistics:
    return read_folder(path, lambda file: _read_one(file, key))


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
    Format("Parquet or Arrow", lambda _, head: head.startswith((PARQUET, ARROW)), read_columns),
    Format("JSON", _starts_json, read_json),
    Format("CSV", is_text, read_csv),
    Format("a TensorRT-LLM folder", lambda path, _: is_statistics_folder(path), read_statistics_folder),
    Format("a folder of SGLang recordings", lambda path, _: is_recording_folder(path), read_recording_folder),
    Format("a folder of loads that a plug-in kept", lambda path, _: is_record_folder(path), read_record_folder),
    Format("a folder of files", lambda path, _: is_folder_of_files(path), _read_folder),
)
