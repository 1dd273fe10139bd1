"""Traces in files and folders: a table of what can be read in pieces; whatever else holds a load is read whole.

=========================  ========================================================================================
file or folder             what it is
=========================  ========================================================================================
.npy                       [steps, layers, experts], read in pieces; with ``tokens_per_step`` [tokens, layers, k]
.npz                       the same under a key; ``routed_experts`` or ``topk_ids`` [tokens, layers, k], as vLLM
                           returns them, with ``step`` [tokens] and, if it is there, ``num_experts``
a long table in text       a header with ``layer``, ``expert``, ``count`` and, if it is there, ``step``, as
                           ``read_load`` reads it
a folder of dumps          files that each hold steps, in the order of the numbers in their names, read one by one:
                           SGLang's ``stat`` dumps, what a plug-in keeps, or any load
SGLang's ``per_token``     recordings of all ranks: the experts of each token, see ``sglang_tokens.py``
what ``read_load`` reads   SGLang's ``per_pass`` recordings, folders of TensorRT-LLM, JSON, torch
=========================  ========================================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, as_path, count
from equipoise.decode.archive import open_archive
from equipoise.decode.numpy import read_array
from equipoise.decode.pieces import Rows, npy_rows, npz_rows
from equipoise.decode.source import opened, reading
from equipoise.decode.torch import outline_torch
from equipoise.errors import FileFormatError
from equipoise.limits import LARGEST_TRACE, MOST_LAYERS, MOST_SLOTS
from equipoise.load import read_load
from equipoise.load.documents import COUNT_KEYS, LAYER_IDS
from equipoise.load.doubts import refuse_pattern
from equipoise.load.folders import are_steps
from equipoise.load.readers import is_text
from equipoise.load.recorded_files import is_record_folder
from equipoise.load.sglang_files import is_recording
from equipoise.load.text_files import read_long_csv
from equipoise.traces.long_csv import long_source
from equipoise.traces.sglang_tokens import holds_tokens, read_tokens
from equipoise.traces.trace import Source, Steps, Trace, tokens_source

__all__ = ["TRACE_FORMATS", "TraceFormat", "read_trace"]

TOKEN_KEYS = ("routed_experts", "topk_ids")
HEAD = 4096
MOST_RANKS, LARGEST_PATTERN = 4096, 1 << 24
"""So many steps, and numbers, may be a pattern of which rank holds what."""


@dataclass(frozen=True)
class Asked:
    """What a reader is given: the path, the key and the tokens of a step, None where nothing was said."""

    path: Path
    key: str | None
    tokens_per_step: int | None


@dataclass(frozen=True)
class TraceFormat:
    """A row: the name, how its content is known by path and first bytes, and how it is read, None if it is not."""

    name: str
    matches: Callable[[Path, bytes], bool]
    read: Callable[[Asked], Trace | None]


def read_trace(path: str | os.PathLike[str], *, key: str | None = None, tokens_per_step: int | None = None) -> Trace:
    """Return the trace in a file or folder; see the table above, and ``Trace.read``."""
    path = as_path(path)
    if key is not None:
        as_instance(key, str, "key", "the name of an array, or None")
    if tokens_per_step is not None:
        tokens_per_step = count(tokens_per_step, "tokens_per_step")
    asked = Asked(path, key, tokens_per_step)
    with reading(path):
        head = b""
        if not path.is_dir():
            with opened(path, LARGEST_TRACE) as (stream, _):
                head = stream.read(HEAD)
        for row in TRACE_FORMATS:
            if row.matches(path, head):
                found = row.read(asked)
                if found is not None:
                    return found
        if tokens_per_step is not None:
            raise FileFormatError(f"{path} holds counts of tokens and no tokens; leave out tokens_per_step.")
        return Trace(read_load(path, key=key))


def _read_npy(asked: Asked) -> Trace | None:
    if asked.key is not None:
        return None  # read_load says that there are no keys
    rows = npy_rows(asked.path)
    if rows is None:
        return None
    if asked.tokens_per_step is not None:
        return _of_tokens(rows, asked, None, None)
    return _of_counts(rows)


def _read_npz(asked: Asked) -> Trace | None:
    with open_archive(asked.path, LARGEST_TRACE) as archive:
        keys = [name.removesuffix(".npy") for name in archive.sizes if name.endswith(".npy")]
        if len(keys) < len(archive.sizes):
            return None  # a torch file
        small = {}
        for name in ("step", "num_experts", LAYER_IDS):
            if name in keys:
                with archive.open(f"{name}.npy", f"{asked.path}: {name}") as stream:
                    small[name] = read_array(stream, archive.sizes[f"{name}.npy"], f"{asked.path}: {name}")
    holds_tokens = [name for name in TOKEN_KEYS if name in keys]
    known = [name for name in COUNT_KEYS if name in keys]
    if asked.key is not None:
        chosen = asked.key
    elif len(keys) == 1 or not (holds_tokens or known):
        chosen = keys[0]
    else:
        chosen = (holds_tokens or known)[0]
    rows = npz_rows(asked.path, chosen)
    if rows is None or (asked.key is None and len(known) > 1 and not holds_tokens):
        return None  # read_load says what is wrong
    if chosen in TOKEN_KEYS or asked.tokens_per_step is not None:
        experts = small.get("num_experts")
        return _of_tokens(rows, asked, small.get("step"), None if experts is None else int(experts.reshape(-1)[0]))
    ids = small.get(LAYER_IDS)
    return _of_counts(rows, None if ids is None else tuple(ids.reshape(-1).tolist()))


def _of_counts(rows: Rows, layer_ids: tuple[int, ...] | None = None) -> Trace | None:
    if len(rows.shape) != 3 or rows.dtype.kind == "b":
        return None  # read_load says what is wrong, or takes it for a single step
    steps, layers, experts = rows.shape
    _check_shape(layers, experts, rows.path)
    if steps <= MOST_RANKS and steps * layers * experts <= LARGEST_PATTERN:
        refuse_pattern(np.concatenate(list(rows.pieces())), str(rows.path))

    def pieces() -> Iterator[Steps]:
        """Yield some steps at a time."""
        for piece in rows.pieces():
            yield Steps(piece)

    return Trace(Source((steps, layers, experts), pieces), str(rows.path), layer_ids)


def _of_tokens(rows: Rows, asked: Asked, step: NDArray[Any] | None, experts: int | None) -> Trace:
    if len(rows.shape) != 3 or rows.dtype.kind not in "iu":
        raise FileFormatError(
            f"{asked.path} has shape {rows.shape} and type {rows.dtype}; the experts of tokens are whole numbers in "
            "the shape (tokens, layers, experts a token)."
        )
    tokens = rows.shape[0]
    if asked.tokens_per_step is not None:
        step = np.arange(tokens) // asked.tokens_per_step
    if step is None:
        raise FileFormatError(
            f"{asked.path} does not say which tokens were in one step; add an array called step, or name "
            "tokens_per_step."
        )
    if experts is None:
        experts = 1 + max(int(piece.max()) for piece in rows.pieces())
    _check_shape(rows.shape[1], experts, asked.path)
    return Trace(tokens_source(rows.pieces, rows.shape, step, experts), str(asked.path))


def _check_shape(layers: int, experts: int, path: Path) -> None:
    if layers > MOST_LAYERS or not 0 < experts <= MOST_SLOTS:
        raise FileFormatError(
            f"{path} is of {layers:,} layers and {experts:,} experts; {MOST_LAYERS:,} of {MOST_SLOTS:,} are the most."
        )


def _read_folder(asked: Asked) -> Trace | None:
    """Return the files of a folder as one trace, each with as many layers and experts as the first."""
    files = _dumps(asked.path)
    if not files:
        return None
    first = read_load(files[0], key=_key_in(asked))
    shape = first.num_layers, first.num_logical_experts
    lengths = [len(first.tokens_per_expert)]
    for file in files[1:]:
        found = read_load(file, key=_key_in(asked))
        if (found.num_layers, found.num_logical_experts) != shape:
            raise FileFormatError(
                f"{file} has {found.num_layers} layers of {found.num_logical_experts} experts and {files[0]} has "
                f"{shape[0]} of {shape[1]}; a trace is of one model. Keep the dumps of each model in a folder."
            )
        lengths.append(found.num_windows)

    def pieces() -> Iterator[Steps]:
        """Yield the steps of a file at a time."""
        for file, length in zip(files, lengths, strict=True):
            counts = read_load(file, key=_key_in(asked)).tokens_per_expert
            if counts.shape != (length, *shape):
                raise FileFormatError(f"{file} has changed since it was first read; copy the folder before reading it.")
            yield Steps(counts)

    return Trace(Source((sum(lengths), *shape), pieces), str(asked.path), first.layer_ids)


def _key_in(asked: Asked) -> str | None:
    return "load" if is_record_folder(asked.path) else asked.key


def _dumps(folder: Path) -> list[Path]:
    """Return the files of a folder that each hold steps, in the order of the numbers in their names."""
    files = sorted((each for each in folder.iterdir() if each.suffix in SUFFIXES and each.is_file()), key=_by_numbers)
    if is_record_folder(folder):
        kinds = {file.name.rsplit("-", 1)[0] for file in files}
        return files if len(kinds) == 1 else []  # read_load asks which of them
    return files


SUFFIXES = (".pt", ".npy", ".npz", ".json", ".csv")


def _by_numbers(path: Path) -> list[tuple[int, float, str]]:
    """Order dump_2 before dump_10, and numbers before words."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", path.stem)
    return [(0, float(part), "") if part[0].isdigit() else (1, 0.0, part) for part in parts]


def _is_folder_of_dumps(path: Path, _: bytes) -> bool:
    """Whether a folder holds files of steps: neither TensorRT-LLM's nor the ranks of one SGLang recording."""
    if not path.is_dir() or (path / "meta_info.json").is_file():
        return False
    files = _dumps(path)
    if not files or not (is_record_folder(path) or are_steps([file.name for file in files])):
        return False
    return not (files[0].suffix == ".pt" and _is_rank_file(files[0]))


def _is_rank_file(path: Path) -> bool:
    document = outline_torch(path)
    return isinstance(document, dict) and is_recording(document)


def _is_recorded(path: Path, head: bytes) -> bool:
    """Whether a file, or the files of a folder, may be SGLang's recordings."""
    if not path.is_dir():
        return head.startswith(b"PK\x03\x04") and b"data.pkl" in head
    return bool(_dumps(path)) and all(file.suffix == ".pt" for file in _dumps(path))


def _read_recorded(asked: Asked) -> Trace | None:
    """Return tokens, where recordings have them; None leaves counts to the other readers."""
    files = _dumps(asked.path) if asked.path.is_dir() else [asked.path]
    if asked.key is not None or not holds_tokens(outline_torch(files[0])):
        return None
    return Trace(read_tokens(files), str(asked.path))


def _is_table(path: Path, head: bytes) -> bool:
    return is_text(path, head) and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"[")


def _read_csv(asked: Asked) -> Trace | None:
    rows = read_long_csv(asked.path, asked.key)
    return None if rows is None else Trace(long_source(rows), str(asked.path), rows.layer_ids)


TRACE_FORMATS: tuple[TraceFormat, ...] = (
    TraceFormat(".npy", lambda _, head: head.startswith(b"\x93NUMPY"), _read_npy),
    TraceFormat("SGLang's recordings of tokens", _is_recorded, _read_recorded),
    TraceFormat(".npz", lambda _, head: head.startswith((b"PK\x03\x04", b"PK\x05\x06")), _read_npz),
    TraceFormat("a long table in text", _is_table, _read_csv),
    TraceFormat("a folder of dumps", _is_folder_of_dumps, _read_folder),
)
