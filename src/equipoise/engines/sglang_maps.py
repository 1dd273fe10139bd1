"""SGLang's static maps, for ``--init-expert-location``: an object with ``physical_to_logical_map`` and nothing else.

    {"physical_to_logical_map": [[expert of slot 0, expert of slot 1, ...], ...]}        file.json, or file.pt

There is a row for every hidden layer of the model, dense layers too; those rows are never looked at, and hold what
SGLang itself would put there: expert ``slot % num_experts``.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.arrays import as_numpy
from equipoise.decode.tables import whole_numbers
from equipoise.engines.layered import LayeredPlacement, fill_layers
from equipoise.errors import FileFormatError, MissingDependencyError, shown

__all__ = ["is_map", "read_map", "rows_of", "save_torch", "table_of", "write_json", "write_torch"]

KEY = "physical_to_logical_map"


def is_map(document: Any) -> bool:
    """Whether a decoded JSON or torch document is a static map."""
    return isinstance(document, Mapping) and KEY in document


def read_map(document: Mapping[Any, Any], path: Path) -> LayeredPlacement:
    """Return the placement in a static map; it says nothing of ranks.

    Raises
    ------
    FileFormatError
        If there is another key (SGLang would stop at it), or the map breaks a rule.
    """
    extra = [key for key in document if key != KEY]
    if extra:
        raise FileFormatError(
            f"{path} has the key {shown(extra[0])} beside {KEY!r}; SGLang takes no other key. Remove it."
        )
    return table_of(document[KEY], path)


def table_of(value: Any, path: Path, *, may_be_empty: bool = False) -> LayeredPlacement:
    """Return a nested list or a tensor as a placement whose rows are the model's layers from 0."""
    name = f"{path}: {KEY}"
    table = whole_numbers(value, name) if isinstance(value, list) else as_numpy(value, name)
    ids = tuple(range(len(table))) if table.ndim else ()
    return LayeredPlacement(table, ids, source=str(path), may_be_empty=may_be_empty)


def rows_of(placement: LayeredPlacement) -> Any:
    """Return the slots of every hidden layer, dense ones too."""
    trivial = np.arange(placement.num_slots) % placement.num_logical_experts
    return fill_layers(placement.physical_to_logical, placement.layer_ids, trivial)


def write_json(placement: LayeredPlacement) -> bytes:
    """Return the map as JSON text."""
    return (json.dumps({KEY: rows_of(placement).tolist()}) + "\n").encode()


def write_torch(placement: LayeredPlacement) -> bytes:
    """Return the map as a torch file of one int64 tensor."""
    return save_torch(lambda torch: {KEY: torch.from_numpy(rows_of(placement).astype(np.int64))})


def save_torch(build: Any) -> bytes:
    """Return what ``torch.save`` writes for ``build(torch)``."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise MissingDependencyError(
            "a .pt file is written by torch, which is not installed here. Run pip install equipoise[torch]."
        ) from error
    stream = io.BytesIO()
    torch.save(build(torch), stream)
    return stream.getvalue()
