"""Loads in numpy's own files: .npy holds one array, .npz several under their keys."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import check_values
from equipoise.decode.archive import Archive, open_archive
from equipoise.decode.numpy import Look, decode_npy, look_through, read_array
from equipoise.errors import FileFormatError, shown
from equipoise.limits import MOST_LAYERS
from equipoise.load.documents import LAYER_IDS, check_declared, choose_key, from_array, no_keys
from equipoise.load.statistics import LoadStatistics

__all__ = ["read_npy", "read_npz"]


def read_npy(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a .npy file."""
    if key is not None:
        raise no_keys(path, key)
    return from_array(decode_npy(path, _look_for_load(f"{path}: the array")), path)


def read_npz(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a .npz file: the only array in it, else the one that ``COUNT_KEYS`` or ``key`` names.

    An array ``layer_ids`` beside it holds the model's id of each layer.
    """
    with open_archive(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.sizes]
        chosen = keys[0] if key is None and len(keys) == 1 else choose_key(keys, key, path)
        where = f"{path}: {shown(chosen)[1:-1]}"
        load = from_array(_member(archive, chosen, where, _look_for_load(where)), path, shown(chosen)[1:-1])
        if LAYER_IDS not in keys or chosen == LAYER_IDS:
            return load
        where = f"{path}: {LAYER_IDS}"
        ids = _member(archive, LAYER_IDS, where, Look(partial(_check_ids, name=where)))
    return replace(load, layer_ids=tuple(ids.tolist()))


def _member(archive: Archive, key: str, where: str, look: Look) -> NDArray[Any]:
    member = f"{key}.npy"
    with archive.open(member, where) as stream:
        look_through(stream, archive.sizes[member], where, look)
    with archive.open(member, where) as stream:
        array = read_array(stream, archive.sizes[member], where)
        stream.read(1)  # at the end, the checksum is looked at
    return array


def _check_ids(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    if len(shape) != 1 or shape[0] > MOST_LAYERS or dtype.kind not in "iu":
        raise FileFormatError(f"{name} has shape {shape} and type {dtype}; it must hold the id of each layer.")


def _look_for_load(name: str) -> Look:
    """Return what says early that an array is no load."""
    return Look(partial(check_declared, name=name), partial(check_values, name=name, axis="step"))
