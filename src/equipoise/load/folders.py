"""Several files, or a folder of them, as one load: steps one after the other, ranks to be summed, or a layer each."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from equipoise.arrays import check_loads
from equipoise.errors import FileFormatError, counted, listed
from equipoise.limits import MOST_FILES
from equipoise.load.sglang_files import time_order
from equipoise.load.statistics import LoadStatistics

__all__ = ["are_steps", "is_folder_of_files", "joined", "read_folder"]

ENDINGS = (".npy", ".npz", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather", ".pt", ".gz")
_RANK = re.compile(r"rank[_-]?(\d{1,6})", re.IGNORECASE)
_LAYER = re.compile(r"layers?[._-]?(\d{1,6})", re.IGNORECASE)


def is_folder_of_files(path: Path) -> bool:
    """Whether a folder holds a file with one of the names that loads have."""
    return path.is_dir() and bool(_files(path))


def are_steps(names: Sequence[str]) -> bool:
    """Whether files of these names hold steps one after the other, and not what each rank counted, or a layer each."""
    return len(names) < 2 or not any(all(map(part.search, names)) for part in (_RANK, _LAYER))


def read_folder(path: Path, read: Callable[[Path], LoadStatistics]) -> LoadStatistics:
    """Return the files of a folder as one load, in the order of the numbers in their names.

    Where every name has a rank, as in ``counts_rank3_0.csv``, the files of the ranks are summed, the first of each
    rank with the first of the others.

    Raises
    ------
    FileFormatError
        If a file is no load, they are of different kinds or models, or ranks have different numbers of files.
    """
    files = _files(path)
    kinds = sorted({"".join(file.suffixes[-2:] if file.suffix == ".gz" else file.suffixes[-1:]) for file in files})
    if len(kinds) > 1:
        raise FileFormatError(f"{path} holds files of several kinds, {' and '.join(kinds)}; name those that are meant.")
    if len(files) > MOST_FILES:
        raise FileFormatError(f"{path} holds {len(files):,} files; at most {MOST_FILES:,} are read as one load.")
    ranks = [_RANK.search(file.name) for file in files]
    by_rank: dict[int, list[LoadStatistics]] = {}
    for file, rank in zip(files, ranks, strict=True):
        by_rank.setdefault(int(rank[1]) if rank and all(ranks) else -1, []).append(read(file))
    if len(by_rank) == 1:
        return joined(next(iter(by_rank.values())), str(path))
    missing = sorted(set(range(max(by_rank) + 1)) - set(by_rank))
    counts = {len(loads) for loads in by_rank.values()}
    if missing or len(counts) > 1:
        what = f"nothing of rank {missing[0]}" if missing else "not as many files of each rank"
        raise FileFormatError(f"{path} holds {what}; a load is the sum over all ranks. Add what is missing.")
    by_time = [joined(loads, str(path)) for _, loads in sorted(by_rank.items())]
    _check_alike(by_time)
    if len({load.num_windows for load in by_time}) > 1:
        raise FileFormatError(f"{path} holds ranks with different numbers of steps; a load is the sum over all ranks.")
    tokens = np.sum([load.tokens_per_expert for load in by_time], axis=0)
    return dataclasses.replace(by_time[0], tokens_per_expert=tokens)


def joined(loads: Sequence[LoadStatistics], source: str) -> LoadStatistics:
    """Return the windows of several loads of one model as one load, in the order given.

    Loads of a single layer whose files' names say each another layer, ``layer_3.csv`` say, become the layers of one.

    Raises
    ------
    FileFormatError
        If they are of different layers or experts. The message names two sources.
    """
    first = loads[0]
    if len(loads) == 1:
        return dataclasses.replace(first, source=source)
    layers = [_LAYER.search(Path(load.source).name) for load in loads]
    ids = [int(layer[1]) for layer in layers if layer]
    if len(set(ids)) == len(loads) and all(load.num_layers == 1 for load in loads):
        return _stacked(dict(zip(ids, loads, strict=True)), source)
    _check_alike(loads)
    check_loads(sum(load.num_windows for load in loads), first.num_layers, first.num_logical_experts, source)
    tokens = np.concatenate([load.tokens_per_expert for load in loads])
    return LoadStatistics(tokens, source=source, layer_ids=first.layer_ids)


def _stacked(by_layer: dict[int, LoadStatistics], source: str) -> LoadStatistics:
    """Return loads of one layer each, by layer id, as one load."""
    ids, loads = zip(*sorted(by_layer.items()), strict=True)
    shapes = {load.tokens_per_expert.shape for load in loads}
    if len(shapes) > 1:
        raise FileFormatError(f"{source} holds layers with different numbers of steps or experts: make them alike.")
    check_loads(loads[0].num_windows, len(loads), loads[0].num_logical_experts, source)
    tokens = np.concatenate([load.tokens_per_expert for load in loads], axis=1)
    return LoadStatistics(tokens, source=source, layer_ids=ids)


def _check_alike(loads: Sequence[LoadStatistics]) -> None:
    first = loads[0]
    for load in loads:
        if load.num_logical_experts != first.num_logical_experts or load.layer_ids != first.layer_ids:
            one, other = (_of(each) for each in (load, first))
            raise FileFormatError(
                f"{load.source} is of {one} and {first.source} of {other}; only loads of the same layers of one model "
                "are joined."
            )


def _of(load: LoadStatistics) -> str:
    ids = load.layer_ids
    plain = ids == tuple(range(len(ids)))
    layers = counted(len(ids), "layer") if plain else f"{counted(len(ids), 'layer')} ({listed(ids, 4)})"
    return f"{layers} x {counted(load.num_logical_experts, 'expert')}"


def _files(path: Path) -> list[Path]:
    found = [file for file in path.iterdir() if file.name.endswith(ENDINGS) and not file.name.startswith(".")]
    return sorted(found, key=lambda file: time_order(file.name))
