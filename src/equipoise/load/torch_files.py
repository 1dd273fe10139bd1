"""Loads in torch's files: a tensor, or a dict that a row of ``LAYOUTS`` knows."""

from __future__ import annotations

import importlib
from pathlib import Path

from equipoise.errors import FileFormatError, MissingDependencyError
from equipoise.load.documents import from_document
from equipoise.load.statistics import LoadStatistics

__all__ = ["read_torch"]


def read_torch(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a .pt file, old or new. Only tensors and plain values are loaded: no code runs.

    Raises
    ------
    MissingDependencyError
        If torch is not installed: nothing else reads these files.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} was written by torch, which is not installed here. "
            "Run pip install equipoise[torch], or save the counts as .npy."
        ) from error
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for damaged bytes is no part of its interface
        raise FileFormatError(
            f"{path} is truncated or damaged, or holds more than tensors, numbers, lists and dicts, which is not "
            "loaded because unpickling runs code. Save the counts alone: torch.save(counts, path)."
        ) from error
    return from_document(document, path, key)
