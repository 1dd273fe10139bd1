"""Loads in torch's files: a tensor, or a dict that a row of ``LAYOUTS`` knows."""

from __future__ import annotations

from pathlib import Path

from equipoise.decode.torch import decode_torch
from equipoise.load.documents import from_document
from equipoise.load.statistics import LoadStatistics

__all__ = ["read_torch"]


def read_torch(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a .pt file, old or new."""
    return from_document(decode_torch(path), path, key)
