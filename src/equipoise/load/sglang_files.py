"""SGLang's recorder: what each rank sent where, forward pass by forward pass.

In its ``stat`` modes the recorder writes one file with ``logical_count``, which ``documents.py`` reads like any
other count. In its ``per_pass`` and ``per_token`` modes each rank writes a file of its own, with counts by slot:

    {"records": [{"forward_pass_id", "rank", "gatherer_key", "global_physical_count" [L, P], ...}, ...],
     "last_physical_to_logical_map" [L, P]}

The truth is the sum over ranks, so name the folder that holds their files; one file alone is that rank's share.
A placement that changed during the recording cannot be seen in the file: the last one is taken for all passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_numpy, check_loads
from equipoise.decode.torch import decode_torch
from equipoise.errors import FileFormatError, listed, shown
from equipoise.load.statistics import LoadStatistics

__all__ = ["is_recording", "is_recording_folder", "read_recording", "read_recording_folder"]

_RECORDS, _MAP, _COUNT = "records", "last_physical_to_logical_map", "global_physical_count"
Ints = NDArray[np.int64]


def is_recording(document: Mapping[Any, Any]) -> bool:
    """Whether a document is one rank's recording."""
    return _RECORDS in document


def is_recording_folder(path: Path) -> bool:
    """Whether a folder holds torch files and nothing that another row would take for its own."""
    return path.is_dir() and any(path.glob("*.pt"))


def read_recording(document: Mapping[Any, Any], path: Path) -> LoadStatistics:
    """Return one rank's recording as load statistics: one window for each forward pass, oldest first."""
    return _gather([(path, document)], path)


def read_recording_folder(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the recordings of all ranks, summed: one window for each forward pass that any of them saw."""
    if key is not None:
        raise FileFormatError(f"{path} is a folder of recordings, which have no keys; leave out key={shown(key)}.")
    files = sorted(path.glob("*.pt"))
    documents = []
    for file in files:
        document = decode_torch(file)
        if not isinstance(document, Mapping) or not is_recording(document):
            raise FileFormatError(
                f"{file} holds no {_RECORDS!r}, and a folder is read as the recordings of all ranks. Name one file, "
                "or keep only recordings in it."
            )
        documents.append((file, document))
    return _gather(documents, path)


def _gather(documents: list[tuple[Path, Mapping[Any, Any]]], source: Path) -> LoadStatistics:
    first, table = documents[0][0], _slots(documents[0][1], documents[0][0])
    seen: dict[tuple[int, int], tuple[Path, NDArray[Any]]] = {}
    for path, document in documents:
        if not np.array_equal(_slots(document, path), table):
            raise FileFormatError(
                f"{path} and {first} end with different placements; they are not ranks of one recording."
            )
        for number, record in _records(document, path):
            where = f"{path}: record {number}"
            forward, rank = (_whole(record, name, where) for name in ("forward_pass_id", "rank"))
            if (forward, rank) in seen:
                raise FileFormatError(
                    f"{where} repeats forward pass {forward} of rank {rank}, already in {seen[forward, rank][0]}; "
                    "keep one of them."
                )
            seen[forward, rank] = path, _counts(record, where, table.shape)
    if not seen:
        raise FileFormatError(f"{source} holds no record; start the recording, send requests, then dump it.")
    layers, experts = len(table), int(table.max()) + 1
    window = {forward: i for i, forward in enumerate(sorted({forward for forward, _ in seen}))}
    check_loads(len(window), layers, experts, str(source))
    tokens = np.zeros((len(window), layers * experts))
    cell = (np.arange(layers)[:, None] * experts + table).reshape(-1)
    for (forward, _), (_, counts) in seen.items():
        tokens[window[forward]] += np.bincount(cell, weights=counts.reshape(-1), minlength=layers * experts)
    return LoadStatistics(tokens.reshape(-1, layers, experts), source=str(source))


def _records(document: Mapping[Any, Any], path: Path) -> list[tuple[int, Mapping[Any, Any]]]:
    """Return the records to count, with their numbers: the main ones, where a debugging name adds others."""
    records = document[_RECORDS]
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise FileFormatError(f"{path}: {_RECORDS} must be a list of objects, one for each forward pass.")
    return [(i, record) for i, record in enumerate(records) if _is_primary(record.get("gatherer_key", "primary"))]


def _is_primary(key: Any) -> bool:
    return isinstance(key, str) and key == "primary"


def _slots(document: Mapping[Any, Any], path: Path) -> Ints:
    if _MAP not in document:
        raise FileFormatError(f"{path} has no {_MAP!r}, without which counts by slot say nothing about experts.")
    table = as_numpy(document[_MAP], f"{path}: {_MAP}")
    if table.ndim != 2 or table.size == 0 or table.dtype.kind not in "iu" or table.min() < 0:
        raise FileFormatError(
            f"{path}: {_MAP} has shape {table.shape} and type {table.dtype}; it must hold the expert of each slot, "
            "shape (layers, slots)."
        )
    if int(table.max()) >= table.shape[1]:
        raise FileFormatError(
            f"{path}: {_MAP} names expert {int(table.max())}, and {table.shape[1]} slots do not hold so many; the file "
            "is damaged. Record it again."
        )
    return table.astype(np.int64)


def _counts(record: Mapping[Any, Any], where: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if _COUNT not in record:
        raise FileFormatError(f"{where} has no {_COUNT!r}; its keys are {listed(record)}.")
    counts = as_numpy(record[_COUNT], f"{where}: {_COUNT}")
    if counts.shape != shape or counts.dtype.kind not in "iu" or counts.min() < 0:
        raise FileFormatError(
            f"{where}: {_COUNT} has shape {counts.shape} and type {counts.dtype}; it must hold counts in the shape of "
            f"the placement, {shape}."
        )
    return counts


def _whole(record: Mapping[Any, Any], name: str, where: str) -> int:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FileFormatError(f"{where}: {name} is {shown(value)}; it must be a whole number.")
    return value
