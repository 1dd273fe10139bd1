"""Loads in torch's files: a tensor, or a dict that a row of ``LAYOUTS`` knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equipoise.arrays import check_values
from equipoise.decode.torch import Rows, Tensor, decode_torch
from equipoise.load.documents import check_declared, choose_key, from_document, is_by_layer
from equipoise.load.sglang_files import is_recording
from equipoise.load.statistics import LoadStatistics

__all__ = ["read_torch"]


def read_torch(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a .pt file, old or new."""
    return from_document(decode_torch(path, lambda document, rows: _look(document, rows, path, key)), path, key)


def _look(document: Any, rows: Rows, path: Path, key: str | None) -> None:
    """Say what makes it no load before memory is taken: its keys, the shape of its tensor, numbers of a large one."""
    place = ""
    if isinstance(document, dict):
        if key is None and (is_recording(document) or is_by_layer(document)):
            return
        place = choose_key(list(document), key, path)
        document = document[place]
    if isinstance(document, Tensor):
        name = f"{path}: {place or 'the array'}"
        check_declared(document.shape, document.dtype, name)
        if document.dtype.kind in "iuf":
            check_values(rows(document), name, axis="step")
