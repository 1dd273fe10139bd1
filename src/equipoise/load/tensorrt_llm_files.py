"""TensorRT-LLM's statistics: a folder that holds what each rank counted.

``meta_info.json`` says ``num_experts`` and ``num_experts_per_token``; ``rank{r}.safetensors`` holds, under
"{iteration}_{layer}", int64 counts of shape (num_experts,). The truth is the sum over ranks. Layers are named by
the model's own ids, which become ``layer_ids``: DeepSeek-V3 starts at 3. Files that end in ``_raw.safetensors``
hold token by token what the others count, and are passed over.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import FileFormatError, MissingDependencyError
from equipoise.load.statistics import LoadStatistics
from equipoise.load.text_files import decode_json

__all__ = ["META", "is_statistics_folder", "read_statistics_folder"]

META = "meta_info.json"
_FILE, _KEY = re.compile(r"rank(\d+)\.safetensors"), re.compile(r"(\d+)_(\d+)")


def is_statistics_folder(path: Path) -> bool:
    """Whether a folder is named as these statistics are."""
    return path.is_dir() and (path / META).is_file()


def read_statistics_folder(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the statistics in a folder, summed over ranks: one window for each iteration, oldest first.

    Raises
    ------
    FileFormatError
        If the description, a rank, a layer of an iteration or a count is missing or not as it must be.
    MissingDependencyError
        If safetensors is not installed.
    """
    if key is not None:
        raise FileFormatError(f"{path} is a folder of statistics, which has no keys; leave out key={key!r}.")
    experts = _num_experts(path)
    files = {int(found[1]): file for file in path.iterdir() if (found := _FILE.fullmatch(file.name))}
    if sorted(files) != list(range(len(files))) or not files:
        raise FileFormatError(
            f"{path} holds the statistics of ranks {sorted(files)}; it needs rank0.safetensors and one file for each "
            "rank after it, without a hole."
        )
    total: dict[tuple[int, int], NDArray[np.int64]] = {}
    first: set[tuple[int, int]] = set()
    for rank in sorted(files):
        counts = _read_rank(files[rank], experts)
        first = first or set(counts)
        if set(counts) != first:
            odd = "_".join(map(str, min(set(counts) ^ first)))
            raise FileFormatError(f"{files[rank]} and rank0.safetensors do not both hold {odd!r}; every rank must.")
        for place, values in counts.items():
            total[place] = total.get(place, 0) + values
    iterations, layers = (sorted({place[i] for place in total}) for i in (0, 1))
    for iteration in iterations:
        for layer in layers:
            if (iteration, layer) not in total:
                raise FileFormatError(f"{path} has no counts under '{iteration}_{layer}', and other layers have.")
    tokens = np.stack([np.stack([total[iteration, layer] for layer in layers]) for iteration in iterations])
    return LoadStatistics(tokens.astype(np.float64), source=str(path), layer_ids=tuple(layers))


def _num_experts(path: Path) -> int:
    meta = decode_json(path / META)
    experts = meta.get("num_experts") if isinstance(meta, dict) else None
    if isinstance(experts, bool) or not isinstance(experts, int) or experts < 1:
        raise FileFormatError(f"{path / META}: num_experts is {experts!r}; it must be a whole number of at least 1.")
    return experts


def _read_rank(path: Path, experts: int) -> dict[tuple[int, int], NDArray[np.int64]]:
    try:
        safetensors: Any = importlib.import_module("safetensors")
        load: Any = importlib.import_module("safetensors.numpy").load
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is a safetensors file, and safetensors is not installed here. Run pip install equipoise[engines]."
        ) from error
    try:
        tensors = load(path.read_bytes())
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that numpy does not have
        raise FileFormatError(f"{path} is truncated or damaged ({error}). Copy or write it again.") from None
    found = {}
    for name, values in tensors.items():
        place = _KEY.fullmatch(name)
        if place is None:
            raise FileFormatError(f"{path} has the key {name!r}; keys are '<iteration>_<layer>', such as '100_3'.")
        if values.shape != (experts,) or values.dtype.kind not in "iu" or values.min() < 0:
            raise FileFormatError(
                f"{path}: {name} has shape {values.shape} and type {values.dtype}; it must hold {experts} counts."
            )
        found[int(place[1]), int(place[2])] = values.astype(np.int64)
    if not found:
        raise FileFormatError(f"{path} holds no counts; record at least one iteration.")
    return found
