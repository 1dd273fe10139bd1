"""TensorRT-LLM: its planner is compiled in, so a plan goes in as a load-balancer YAML file.

    num_slots: 288
    initial_global_assignments:
      3: [expert of slot 0, expert of slot 1, ...]
    layer_updates_per_iter: 0

There is a row for every MoE layer under the model's own layer id, no other key is allowed, and 0 updates per
iteration keep the placement as it is. Statistics go out as folders; ``equipoise.load.tensorrt_llm_files`` reads them.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.arguments import count
from equipoise.decode.tables import whole_numbers
from equipoise.engines.layered import LayeredPlacement
from equipoise.errors import FileFormatError, InvalidInputError, MissingDependencyError, shown
from equipoise.load import LoadStatistics
from equipoise.load.tensorrt_llm_files import META

__all__ = ["is_config", "read_config", "write_config", "write_statistics"]

_WAY = ("moe_config", "load_balancer")
_KEYS = ("num_slots", "initial_global_assignments", "layer_updates_per_iter")


def is_config(document: Any) -> bool:
    """Whether a decoded YAML document is a load-balancer configuration, or the engine's options with one in them."""
    return "initial_global_assignments" in _section(document)


def _section(document: Any) -> dict[Any, Any]:
    """Return the load-balancer configuration in the engine's options, where it is one; else the document."""
    for key in _WAY:
        if isinstance(document, dict) and isinstance(document.get(key), dict):
            document = document[key]
    return document if isinstance(document, dict) else {}


def read_config(document: dict[Any, Any], path: Path) -> LayeredPlacement:
    """Return the placement in a load-balancer configuration; it says nothing of ranks.

    Raises
    ------
    FileFormatError
        If a key is missing or unknown, or a row does not hold ``num_slots`` experts.
    """
    document = _section(document)
    for key in document:
        if key not in _KEYS:
            raise FileFormatError(f"{path} has the key {shown(key)}; TensorRT-LLM allows only {', '.join(_KEYS)}.")
    slots, rows = count(document.get("num_slots"), f"{path}: num_slots"), document["initial_global_assignments"]
    if not isinstance(rows, dict) or not rows:
        raise FileFormatError(
            f"{path}: initial_global_assignments must map each layer id to its {shown(slots)} experts."
        )
    for layer, row in rows.items():
        if not isinstance(layer, int):
            raise FileFormatError(f"{path}: {shown(layer)} is no layer id; ids are whole numbers.")
        if not isinstance(row, list) or len(row) != slots:
            raise FileFormatError(f"{path}: layer {layer} must list {shown(slots)} experts, one for each slot.")
    ids = tuple(sorted(rows))
    table = whole_numbers([rows[i] for i in ids], f"{path}: initial_global_assignments")
    return LayeredPlacement(table, ids, source=str(path))


def write_config(placement: LayeredPlacement) -> bytes:
    """Return the placement as YAML text, static; the engine checks that its ranks divide the slots."""
    lines = [f"num_slots: {placement.num_slots}", "initial_global_assignments:"]
    for layer, row in zip(placement.layer_ids, placement.physical_to_logical.tolist(), strict=True):
        lines.append(f"  {layer}: {row}")
    lines.append("layer_updates_per_iter: 0")
    return ("\n".join(lines) + "\n").encode()


def write_statistics(load: LoadStatistics, experts_per_token: int) -> dict[str, bytes]:
    """Return the files of a statistics folder by name: one rank holds all counts, a window is an iteration.

    Raises
    ------
    InvalidInputError
        If a count is not whole.
    MissingDependencyError
        If safetensors is not installed.
    """
    try:
        save: Any = importlib.import_module("safetensors.numpy").save
    except ImportError as error:
        raise MissingDependencyError(
            "TensorRT-LLM's statistics are safetensors files, and safetensors is not installed here. "
            "Run pip install equipoise[engines]."
        ) from error
    counts = whole_counts(load, np.int64, "TensorRT-LLM's statistics")
    tensors = {
        f"{iteration}_{layer}": np.ascontiguousarray(counts[iteration, row])
        for iteration in range(load.num_windows)
        for row, layer in enumerate(load.layer_ids)
    }
    count(experts_per_token, "experts_per_token", most=load.num_logical_experts)
    meta = {"num_experts": load.num_logical_experts, "num_experts_per_token": experts_per_token}
    return {META: (json.dumps(meta) + "\n").encode(), "rank0.safetensors": save(tensors)}


def whole_counts(load: LoadStatistics, dtype: Any, wanted_by: str) -> Any:
    """Return the counts as integers of ``dtype``, or say which one it cannot hold."""
    tokens, most = load.tokens_per_expert, np.iinfo(dtype).max
    wrong = (tokens != np.floor(tokens)) | (tokens > most)
    if wrong.any():
        window, layer, expert = (int(i) for i in np.argwhere(wrong)[0])
        raise InvalidInputError(
            f"{load.source}: window {window}, layer {load.layer_ids[layer]}, expert {expert} holds "
            f"{tokens[window, layer, expert]}; {wanted_by} hold whole numbers up to {most}."
        )
    return tokens.astype(dtype)
