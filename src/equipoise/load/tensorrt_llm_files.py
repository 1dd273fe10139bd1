"""TensorRT-LLM's statistics: a folder that holds what each rank counted.

``meta_info.json`` says ``num_experts`` and ``num_experts_per_token``; ``rank{r}.safetensors`` holds, under
"{iteration}_{layer}", int64 counts of shape (num_experts,). The truth is the sum over ranks. Layers are named by
the model's own ids, which become ``layer_ids``: DeepSeek-V3 starts at 3. Files that end in ``_raw.safetensors``
hold token by token what the others count, and are passed over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import count
from equipoise.arrays import check_loads
from equipoise.decode.json import decode_json
from equipoise.decode.safetensors import decode_safetensors
from equipoise.errors import FileFormatError, listed, shown
from equipoise.load.statistics import LoadStatistics

__all__ = ["META", "is_statistics_folder", "read_statistics_folder"]

META = "meta_info.json"
_FILE = re.compile(r"rank([0-9]{1,9})\.safetensors")
# Each number is written in one way only, so no two keys mean the same iteration and layer.
_KEY = re.compile("(0|[1-9][0-9]{0,8})_(0|[1-9][0-9]{0,8})")


def is_statistics_folder(path: Path) -> bool:
    """Whether a folder is named as these statistics are."""
    return path.is_dir() and (path / META).is_file()


def read_statistics_folder(path: Path, key: str | None = None) -> LoadStatistics:
    """Return the statistics in a folder, summed over ranks: one window for each iteration, oldest first.

    Raises
    ------
    FileFormatError
        If the description, a rank, a layer of an iteration or a count is missing or not as it must be.
    """
    if key is not None:
        raise FileFormatError(f"{path} is a folder of statistics, which has no keys; leave out key={shown(key)}.")
    experts = _num_experts(path)
    files = _rank_files(path)
    if sorted(files) != list(range(len(files))) or not files:
        raise FileFormatError(
            f"{path} holds the statistics of {f'rank {listed(sorted(files))}' if files else 'no rank'}; it needs "
            "rank0.safetensors and one file for each rank after it, without a hole."
        )
    ranks = [_read_rank(files[rank], experts) for rank in sorted(files)]
    for rank, counts in enumerate(ranks):
        odd = set(counts) ^ set(ranks[0])
        if odd:
            key = "_".join(map(str, min(odd)))
            raise FileFormatError(
                f"{files[rank]} and rank0.safetensors do not both hold {shown(key)}; every rank must."
            )
    iterations, layers = (sorted({place[i] for place in ranks[0]}) for i in (0, 1))
    for iteration in iterations:
        for layer in layers:
            if (iteration, layer) not in ranks[0]:
                raise FileFormatError(f"{path} has no counts under '{iteration}_{layer}', and other layers have.")
    check_loads(len(iterations), len(layers), experts, str(path))
    tokens = np.zeros((len(iterations), len(layers), experts))
    for counts in ranks:
        for i, iteration in enumerate(iterations):
            for row, layer in enumerate(layers):
                tokens[i, row] += counts[iteration, layer]
    return LoadStatistics(tokens, source=str(path), layer_ids=tuple(layers))


def _rank_files(path: Path) -> dict[int, Path]:
    """Return the file of each rank; ``rank00.safetensors`` would be a second one of rank 0."""
    files = {}
    for file in path.iterdir():
        found = _FILE.fullmatch(file.name)
        if found is not None:
            if found[1] != str(int(found[1])):
                raise FileFormatError(
                    f"{file} names rank {int(found[1])} in another way than it is written; rename it."
                )
            files[int(found[1])] = file
    return files


def _num_experts(path: Path) -> int:
    meta = decode_json(path / META)
    experts = meta.get("num_experts") if isinstance(meta, dict) else None
    return count(experts, f"{path / META}: num_experts")


def _read_rank(path: Path, experts: int) -> dict[tuple[int, int], NDArray[Any]]:
    found: dict[tuple[int, int], NDArray[Any]] = {}

    def look(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a key, or an array, that none of the statistics is."""
        if _KEY.fullmatch(name) is None:
            raise FileFormatError(f"{path} has the key {shown(name)}; keys are '<iteration>_<layer>', such as '100_3'.")
        if shape != (experts,) or dtype.kind not in "iu":
            raise FileFormatError(f"{path}: {name} has shape {shape} and type {dtype}; it must hold {experts} counts.")

    for name, values in decode_safetensors(path, look).items():
        if values.min() < 0:
            raise FileFormatError(f"{path}: {name} holds {values.min()}; it must hold {experts} counts, none negative.")
        iteration, layer = name.split("_")
        found[int(iteration), int(layer)] = values
    if not found:
        raise FileFormatError(f"{path} holds no counts; record at least one iteration.")
    return found
