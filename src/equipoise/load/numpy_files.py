"""Loads in numpy's own files: .npy holds one array, .npz several under their keys."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from equipoise.arrays import check_values
from equipoise.decode.archive import open_archive
from equipoise.decode.numpy import Look, decode_npy, look_through, read_array
from equipoise.errors import shown
from equipoise.load.documents import check_declared, choose_key, from_array, no_keys
from equipoise.load.statistics import LoadStatistics

__all__ = ["read_npy", "read_npz"]


def read_npy(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a .npy file."""
    if key is not None:
        raise no_keys(path, key)
    return from_array(decode_npy(path, _look_for_load(f"{path}: the array")), path)


def read_npz(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a .npz file: the only array in it, else the one that ``COUNT_KEYS`` or ``key`` names."""
    with open_archive(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.sizes]
        chosen = keys[0] if key is None and len(keys) == 1 else choose_key(keys, key, path)
        member, where = f"{chosen}.npy", f"{path}: {shown(chosen)[1:-1]}"
        with archive.open(member, where) as stream:
            look_through(stream, archive.sizes[member], where, _look_for_load(where))
        with archive.open(member, where) as stream:
            array = read_array(stream, archive.sizes[member], where)
            stream.read(1)  # at the end, the checksum is looked at
    return from_array(array, path, shown(chosen)[1:-1])


def _look_for_load(name: str) -> Look:
    """Return what says early that an array is no load."""
    return Look(partial(check_declared, name=name), partial(check_values, name=name, axis="step"))
