"""What a torch file holds, decoded without running any code in it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from equipoise.errors import FileFormatError, MissingDependencyError

__all__ = ["decode_torch"]


def decode_torch(path: Path) -> Any:
    """Return what a .pt file holds. Only tensors and plain values are loaded: no code runs.

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
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for damaged bytes is no part of its interface
        raise FileFormatError(
            f"{path} is truncated or damaged, or holds more than tensors, numbers, lists and dicts, which is not "
            "loaded because unpickling runs code. Save the counts alone: torch.save(counts, path)."
        ) from error
