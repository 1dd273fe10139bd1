"""The files of the engines: a table of placements, a table of loads, and what cannot be written and why.

A file is told apart by content and never by its name. Where an engine goes by the name, writing insists on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, as_path
from equipoise.arrays import check_size
from equipoise.decode.json import decode_json
from equipoise.decode.numpy import Look, decode_npy
from equipoise.decode.source import opened, reading
from equipoise.decode.torch import decode_torch
from equipoise.decode.yaml import decode_yaml
from equipoise.engines import deepseek, hygon, load_files, omni_infer, sglang_maps, tensorrt_llm, vllm_ascend
from equipoise.engines.expressible import check_filled, check_shares
from equipoise.engines.layered import LayeredPlacement
from equipoise.errors import FileFormatError, InvalidInputError, UnknownNameError, listed, reason, shown
from equipoise.files import write_atomically
from equipoise.load import LoadStatistics
from equipoise.load.doubts import names_experts
from equipoise.plan import FORMAT as PLAN
from equipoise.plan import Plan

__all__ = [
    "LOAD_FORMATS",
    "PLACEMENT_FORMATS",
    "LoadFormat",
    "PlacementFormat",
    "find_load_format",
    "find_placement_format",
    "read_placement",
    "read_plan",
    "save_load",
    "save_placement",
]


@dataclass(frozen=True)
class PlacementFormat:
    """A row: how one engine keeps a placement.

    ``kind`` is what the bytes decode as; ``matches`` and ``read`` see the decoded document. ``suffixes`` are the
    names that the engine insists on, empty if it does not care. ``says_empty`` is whether it has a sign for a slot
    that holds nothing, as those of lost ranks do; ``says_shares``, whether it says what part of its expert's tokens
    each slot gets.
    """

    name: str
    kind: str
    suffixes: tuple[str, ...]
    matches: Callable[[Any], bool]
    read: Callable[[Any, Path], LayeredPlacement]
    write: Callable[[LayeredPlacement], bytes]
    says_empty: bool = False
    says_shares: bool = False


@dataclass(frozen=True)
class LoadFormat:
    """A row: how one engine keeps a load. ``write`` returns a file's bytes, or a folder's files by name."""

    name: str
    write: Callable[..., bytes | dict[str, bytes]]
    suffixes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


PLACEMENT_FORMATS: dict[str, PlacementFormat] = {
    row.name: row
    for row in (
        PlacementFormat(
            "vllm-ascend", "JSON", (".json",), vllm_ascend.is_map, vllm_ascend.read_map, vllm_ascend.write_map
        ),
        PlacementFormat(
            "deepseek", "torch", (), deepseek.is_tensors, deepseek.read_tensors, deepseek.write_tensors,
            says_empty=True,
        ),
        PlacementFormat(
            "hygon", "torch", (".pt",), hygon.is_mass, hygon.read_mass, hygon.write_mass, says_shares=True
        ),
        PlacementFormat(
            "sglang", "JSON", (".json",), sglang_maps.is_map, sglang_maps.read_map, sglang_maps.write_json
        ),
        PlacementFormat(
            "sglang-pt", "torch", (".pt",), sglang_maps.is_map, sglang_maps.read_map, sglang_maps.write_torch
        ),
        PlacementFormat(
            "tensorrt-llm", "YAML", (), tensorrt_llm.is_config, tensorrt_llm.read_config, tensorrt_llm.write_config
        ),
        PlacementFormat(
            "omni-infer", ".npy", (".npy",), omni_infer.is_pattern, omni_infer.read_pattern, omni_infer.write_pattern
        ),
    )
}  # fmt: skip

LOAD_FORMATS: dict[str, LoadFormat] = {
    row.name: row
    for row in (
        LoadFormat("sglang-count", load_files.write_counts, (".json",)),
        LoadFormat("sglang-stat", load_files.write_stat),
        LoadFormat("sglang-per-pass", load_files.write_per_pass),
        LoadFormat("lmdeploy", load_files.write_lmdeploy),
        LoadFormat("tensorrt-llm-statistics", tensorrt_llm.write_statistics, needs=("experts_per_token",)),
        LoadFormat("deepseek-load", load_files.write_tensor),
    )
}

# What someone may reasonably ask for and cannot have, with the reason.
REFUSED = {
    "vllm": "vLLM reads no map from a file; set EQUIPOISE_VLLM_PLAN to the plan itself",
    "sglang-per-token": "it holds the experts of every token, which a load does not; use sglang-stat",
    "plan": "a plan carries a proof for a load, which no engine's file has; run equipoise plan on the load",
}


def find_placement_format(name: str) -> PlacementFormat:
    """Return the row called ``name``.

    Raises
    ------
    UnknownNameError
        If there is none. The message gives the reason where there is one.
    """
    as_instance(name, str, "format", f"a name such as {listed(PLACEMENT_FORMATS, 2)}")
    if name in PLACEMENT_FORMATS:
        return PLACEMENT_FORMATS[name]
    known = ", ".join(PLACEMENT_FORMATS)
    if name in LOAD_FORMATS:
        raise UnknownNameError(f"{name} is a format for loads and holds no placement; placements go to {known}.")
    why = f"{REFUSED[name]}. Formats for placements are {known}." if name in REFUSED else f"it must be one of {known}."
    raise UnknownNameError(f"format is {shown(name)}; {why}")


def find_load_format(name: str) -> LoadFormat:
    """Return the row called ``name``, or raise ``UnknownNameError`` as ``find_placement_format`` does."""
    as_instance(name, str, "format", f"a name such as {listed(LOAD_FORMATS, 2)}")
    if name in LOAD_FORMATS:
        return LOAD_FORMATS[name]
    known = ", ".join(LOAD_FORMATS)
    if name in PLACEMENT_FORMATS:
        raise UnknownNameError(f"{name} is a format for placements and holds no load; loads go to {known}.")
    why = f"{REFUSED[name]}. Formats for loads are {known}." if name in REFUSED else f"it must be one of {known}."
    raise UnknownNameError(f"format is {shown(name)}; {why}")


def read_placement(path: str | os.PathLike[str]) -> LayeredPlacement | None:
    """Return the placement in a plan or in any engine's file, None if the file holds none: a load, perhaps.

    A bare table of the expert in each slot, in .npy, JSON or .pt, is one too: every line holds every expert.

    Raises
    ------
    FileFormatError
        If the file is missing or damaged, or breaks a rule of its format.
    MissingDependencyError
        If a package that the format needs is not installed.
    """
    path = as_path(path)
    with reading(path):
        kind = _kind(path)
        if kind is None:
            return None
        document = _DECODERS[kind](path)
        if is_plan(document):
            plan = Plan.load(path)
            return LayeredPlacement.of_plan(plan, str(path))
        for row in PLACEMENT_FORMATS.values():
            if row.kind == kind and row.matches(document):
                return row.read(document, path)
        table = _bare_table(document)
    return None if table is None else LayeredPlacement(table, tuple(range(len(table))), source=str(path))


def _bare_table(document: Any) -> NDArray[np.int64] | None:
    """Return a table of the expert in each slot, [layers, slots], that has no format around it; None if it is none."""
    if isinstance(document, list) and document and all(isinstance(row, list) for row in document):
        if any(type(cell) is not int for row in document for cell in row) or len(set(map(len, document))) > 1:
            return None
        document = np.array(document)
    if (
        not isinstance(document, np.ndarray)
        or document.ndim != 2
        or not document.size
        or document.dtype.kind not in "iu"
    ):
        return None
    return document.astype(np.int64) if document.min() >= 0 and names_experts(document) else None


def is_plan(document: Any) -> bool:
    """Whether a decoded document is a plan of ours."""
    return isinstance(document, dict) and document.get("format") == PLAN


def read_plan(path: str | os.PathLike[str]) -> Plan | None:
    """Return the plan in a file, None if it holds none; errors are those of ``read_placement``."""
    path = as_path(path)
    with reading(path):
        return Plan.load(path) if _kind(path) == "JSON" and is_plan(decode_json(path)) else None


_DECODERS: dict[str, Callable[[Path], Any]] = {
    "JSON": decode_json,
    "torch": decode_torch,
    ".npy": lambda path: decode_npy(path, Look(lambda shape, dtype: check_size(shape, str(path)))),
    "YAML": decode_yaml,
}


def _kind(path: Path) -> str | None:
    """Return which decoder a file needs, by its first bytes; None for a folder and for what no placement is in."""
    if path.is_dir():
        return None
    with opened(path) as (stream, _):
        head = stream.read(4096)
    if not head.strip():
        raise FileFormatError(f"{path} is empty; it must hold a placement or a load.")
    if head.startswith(b"\x93NUMPY"):
        return ".npy"
    if head.startswith(b"PK\x03\x04"):
        return "torch" if b"data.pkl" in head else None
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return "JSON"
    # A YAML configuration says one of its keys in plain letters; a CSV of counts has none.
    return "YAML" if b"num_slots" in head or b"initial_global_assignments" in head else None


def save_placement(placement: LayeredPlacement, name: str, path: str | os.PathLike[str]) -> None:
    """Write a placement to ``path`` in the format called ``name``, whole or not at all.

    Raises
    ------
    InvalidInputError
        If the format cannot express the placement, the engine would not take a file of that name, or the file
        cannot be written.
    """
    as_instance(
        placement, LayeredPlacement, "placement", "a LayeredPlacement, such as LayeredPlacement.of(plan.placement)"
    )
    row, path = find_placement_format(name), as_path(path)
    _check_suffix(row.name, row.suffixes, path)
    if not row.says_empty:
        check_filled(placement, row.name, [name for name, other in PLACEMENT_FORMATS.items() if other.says_empty])
    if not row.says_shares:
        check_shares(placement, row.name)
    write_atomically(path, row.write(placement))


def save_load(load: LoadStatistics, name: str, path: str | os.PathLike[str], **options: Any) -> None:
    """Write a load to ``path``, a new folder for ``tensorrt-llm-statistics``, in the format called ``name``.

    Parameters
    ----------
    load : LoadStatistics
    name : str
        A name in ``LOAD_FORMATS``.
    path : path of a file or folder
    **options
        ``experts_per_token`` for the format that needs it; an option that is None counts as not given.

    Raises
    ------
    InvalidInputError
        If the format needs an option that is missing, cannot express the load, or cannot be written.
    """
    as_instance(load, LoadStatistics, "load", "a LoadStatistics, such as LoadStatistics(counts)")
    row, path = find_load_format(name), as_path(path)
    _check_suffix(row.name, row.suffixes, path)
    given = {key: value for key, value in options.items() if value is not None}
    for option in row.needs:
        if option not in given:
            raise InvalidInputError(f"{name} also says {option}, which a load does not; name it.")
    content = row.write(load, **{option: given[option] for option in row.needs})
    if isinstance(content, bytes):
        write_atomically(path, content)
        return
    try:
        path.mkdir(parents=False, exist_ok=False)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InvalidInputError(
            f"{path} cannot be made a folder: {reason(error)}. Name a new folder in one that exists."
        ) from None
    for file, data in content.items():
        write_atomically(path / file, data)


def _check_suffix(name: str, suffixes: tuple[str, ...], path: Path) -> None:
    if suffixes and not str(path).endswith(suffixes):
        raise InvalidInputError(
            f"{path} must end in {' or '.join(suffixes)} for {name}, which goes by the name; rename it."
        )
