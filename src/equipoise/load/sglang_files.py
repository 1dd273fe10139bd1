"""SGLang's recorder: what each rank sent where, forward pass by forward pass.

In its ``stat`` modes the recorder writes a file with ``logical_count`` at each dump, which ``documents.py`` reads like
any other count; the dumps in a folder are joined. In its ``per_pass`` and ``per_token`` modes each rank writes a file
of its own, with counts by slot:

    {"records": [{"forward_pass_id", "rank", "gatherer_key", "global_physical_count" [L, P], ...}, ...],
     "last_physical_to_logical_map" [L, P]}

The truth is the sum over ranks, so name the folder that holds their files; one file alone is that rank's share.
A placement that changed during the recording cannot be seen in the file: the last one is taken for all passes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_numpy, as_windows, check_loads
from equipoise.decode.torch import decode_torch
from equipoise.errors import FileFormatError, listed, numbered, shown
from equipoise.limits import MOST_FILES
from equipoise.load.statistics import LoadStatistics

__all__ = [
    "is_recording",
    "is_recording_folder",
    "read_recording",
    "read_recording_folder",
    "records_of",
    "slots_of",
    "time_order",
    "whole_of",
]

log = logging.getLogger("equipoise")
_RECORDS, _MAP, _COUNT, _DUMP = "records", "last_physical_to_logical_map", "global_physical_count", "logical_count"
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
    """Return what a folder holds: ``stat`` dumps one after the other, or the recordings of all ranks, summed.

    Dumps are joined in the order of the times in their names; the windows of each stay in theirs.

    Raises
    ------
    FileFormatError
        If a file is neither, both kinds are there, or a rank is missing or there twice.
    """
    if key is not None:
        raise FileFormatError(f"{path} is a folder of recordings, which have no keys; leave out key={shown(key)}.")
    files = sorted(path.glob("*.pt"), key=lambda file: time_order(file.name))
    if len(files) > MOST_FILES:
        raise FileFormatError(f"{path} holds {len(files):,} files; at most {MOST_FILES:,} are read as one load.")
    recordings, dumps = [], []
    for file in files:
        document = decode_torch(file)
        if isinstance(document, Mapping) and is_recording(document):
            recordings.append((file, document))
        elif isinstance(document, Mapping) and _DUMP in document:
            dumps.append((file, document.get("rank", 0), as_windows(document[_DUMP], f"{file}: {_DUMP}", axis="step")))
        else:
            raise FileFormatError(
                f"{file} holds neither {_RECORDS!r} nor {_DUMP!r}, and a folder of .pt files is read as what SGLang's "
                "recorder dumped. Name one file, or keep only recordings in it."
            )
    if recordings and dumps:
        raise FileFormatError(
            f"{path} holds recordings by rank ({recordings[0][0].name}) and summed dumps ({dumps[0][0].name}); keep "
            "one kind."
        )
    return _join(dumps, path) if dumps else _gather(recordings, path)


def _join(dumps: list[tuple[Path, Any, NDArray[np.float64]]], source: Path) -> LoadStatistics:
    first, rank, windows = dumps[0]
    for path, other, more in dumps:
        if shown(other) != shown(rank):  # each of them holds the sum over all ranks
            raise FileFormatError(
                f"{path} was dumped by rank {shown(other)} and {first.name} by rank {shown(rank)}; each holds the sum "
                "over all ranks. Keep those of one rank."
            )
        if more.shape[1:] != windows.shape[1:]:
            raise FileFormatError(
                f"{path} is of {more.shape[1]} layers x {more.shape[2]} experts, and {first.name} of "
                f"{windows.shape[1]} x {windows.shape[2]}; keep the dumps of one model."
            )
    check_loads(sum(len(more) for _, _, more in dumps), windows.shape[1], windows.shape[2], str(source))
    return LoadStatistics(np.concatenate([more for _, _, more in dumps]), source=str(source))


def time_order(name: str) -> tuple[Any, ...]:
    """Return what sorts names by the numbers in them, decimals among them: 9.5 stands before 10.25.

    >>> sorted(["dump_10.25.pt", "dump_9.5.pt"], key=time_order)
    ['dump_9.5.pt', 'dump_10.25.pt']
    """
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return tuple((float(part), part) if i % 2 else (0.0, part) for i, part in enumerate(parts))


def _gather(documents: list[tuple[Path, Mapping[Any, Any]]], source: Path) -> LoadStatistics:
    first, table = documents[0][0], slots_of(documents[0][1], documents[0][0])
    seen: dict[tuple[int, int], tuple[Path, NDArray[Any]]] = {}
    for path, document in documents:
        if not np.array_equal(slots_of(document, path), table):
            raise FileFormatError(
                f"{path} and {first} end with different placements; they are not ranks of one recording."
            )
        for number, record in records_of(document, path):
            where = f"{path}: record {number}"
            forward, rank = (whole_of(record, name, where) for name in ("forward_pass_id", "rank"))
            if (forward, rank) in seen:
                raise FileFormatError(
                    f"{where} repeats forward pass {forward} of rank {rank}, already in {seen[forward, rank][0]}; "
                    "keep one of them."
                )
            seen[forward, rank] = path, _counts(record, where, table.shape)
    if not seen:
        raise FileFormatError(f"{source} holds no record; start the recording, send requests, then dump it.")
    _check_ranks(set(seen), source)
    layers, experts = len(table), int(table.max()) + 1
    window = {forward: i for i, forward in enumerate(sorted({forward for forward, _ in seen}))}
    check_loads(len(window), layers, experts, str(source))
    tokens = np.zeros((len(window), layers * experts))
    cell = (np.arange(layers)[:, None] * experts + table).reshape(-1)
    for (forward, _), (_, counts) in seen.items():
        tokens[window[forward]] += np.bincount(cell, weights=counts.reshape(-1), minlength=layers * experts)
    return LoadStatistics(tokens.reshape(-1, layers, experts), source=str(source))


def _check_ranks(seen: set[tuple[int, int]], source: Path) -> None:
    """Insist that no rank is missing between others; say of whom the sum is, and which passes lack a rank."""
    ranks = {rank for _, rank in seen}
    missing = sorted(set(range(max(ranks) + 1)) - ranks)
    if missing:
        raise FileFormatError(
            f"{source} holds what {numbered('rank', sorted(ranks))} recorded, and nothing of "
            f"{numbered('rank', missing)}; a load is the sum over all ranks. Name a folder with a file of each."
        )
    passes = {forward for forward, _ in seen}
    partial = sorted(forward for forward in passes if any((forward, rank) not in seen for rank in ranks))
    whom = "rank 0 alone" if len(ranks) == 1 else f"ranks 0 to {len(ranks) - 1}"
    log.warning("%s is what %s recorded; if there were more ranks, their files are missing.", source, whom)
    if partial:
        log.warning(
            "%s lacks some ranks in %d of %d forward passes: %s.", source, len(partial), len(passes), listed(partial)
        )


def records_of(document: Mapping[Any, Any], path: Path) -> list[tuple[int, Mapping[Any, Any]]]:
    """Return the records to count, with their numbers: the main ones, where a debugging name adds others."""
    records = document[_RECORDS]
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise FileFormatError(f"{path}: {_RECORDS} must be a list of objects, one for each forward pass.")
    return [(i, record) for i, record in enumerate(records) if _is_primary(record.get("gatherer_key", "primary"))]


def _is_primary(key: Any) -> bool:
    return isinstance(key, str) and key == "primary"


def slots_of(document: Mapping[Any, Any], path: Path) -> Ints:
    """Return the expert of each slot, [layers, slots], as the file ends with it."""
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


def whole_of(record: Mapping[Any, Any], name: str, where: str) -> int:
    """Return a whole number of a record."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FileFormatError(f"{where}: {name} is {shown(value)}; it must be a whole number.")
    return value
