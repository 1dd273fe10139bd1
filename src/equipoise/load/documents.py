"""From what a file decodes into to ``LoadStatistics``: arrays, nested lists, and objects with keys.

A file format (``readers.py``) says how bytes become a document; this file says what a document means.
JSON objects and torch dicts meet here, so one layout is written once and read from both. A layout that an
engine adds is one row in ``LAYOUTS``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_numpy, check_shape, check_size, check_values, in_parts
from equipoise.errors import FileFormatError, listed, shown
from equipoise.limits import MOST_LAYERS
from equipoise.load.columns import whole_in
from equipoise.load.doubts import placement_by_keys
from equipoise.load.sglang_files import is_recording, read_recording
from equipoise.load.statistics import LoadStatistics

__all__ = [
    "COUNT_KEYS",
    "LAYER_IDS",
    "LAYOUTS",
    "Layout",
    "check_declared",
    "choose_key",
    "from_array",
    "from_document",
]

COUNT_KEYS = ("logical_count", "counts", "load")  # the names that are taken without asking
LAYER_IDS = "layer_ids"  # the model's id of each layer, beside the counts
_SHAPES = "(layers, experts) or (steps, layers, experts)"


@dataclass(frozen=True)
class Layout:
    """A row: how to know an object by its keys, and how to read it.

    ``read(document, path)`` returns a ``LoadStatistics`` or raises a ``FileFormatError`` that names the
    path and the key.
    """

    name: str
    matches: Callable[[Mapping[Any, Any]], bool]
    read: Callable[[Mapping[Any, Any], Path], LoadStatistics]


def from_document(document: Any, path: Path, key: str | None = None) -> LoadStatistics:
    """Return the statistics that a decoded JSON or torch document holds.

    Parameters
    ----------
    document : array, tensor, nested list, or object whose keys a row of ``LAYOUTS`` knows
    path : Path
        The file that it comes from, for ``source`` and for errors.
    key : str or None
        The key to read, whatever the layout.

    Raises
    ------
    FileFormatError
        If it is none of these, or its numbers break a rule.
    """
    if isinstance(document, Mapping):
        if key is None:
            for layout in LAYOUTS:
                if layout.matches(document):
                    return layout.read(document, path)
        chosen = choose_key(list(document), key, path)
        return _with_ids(_from_values(document[chosen], path, chosen), document)
    if key is not None:
        raise no_keys(path, key)
    return _from_values(document, path, "")


def choose_key(keys: Sequence[Any], key: str | None, path: Path) -> str:
    """Return the key to read: the one asked for, else the only one that ``COUNT_KEYS`` names."""
    known = [name for name in COUNT_KEYS if name in keys] if key is None else [key]
    if len(known) == 1 and known[0] in keys:
        return known[0]
    if key is not None:
        raise FileFormatError(f"{path} has no key {shown(key)}; its keys are {listed(keys)}.")
    placement = placement_by_keys(keys)
    if placement is not None:
        raise FileFormatError(
            f"{path} is a placement, {placement}, and a load is asked for: tokens per layer and expert."
        )
    if known:
        raise FileFormatError(f"{path} holds {' and '.join(map(repr, known))}; name one of them as key.")
    numbers = all(isinstance(each, str) and each.isdecimal() for each in keys)
    others = f", or write layer_{keys[0]} if they are layers, expert_{keys[0]} if experts" if keys and numbers else ""
    raise FileFormatError(
        f"{path} holds none of the keys {listed(COUNT_KEYS)}; its keys are {listed(keys)}. Name one of them as key"
        f"{others}."
    )


def no_keys(path: Path, key: str) -> FileFormatError:
    """Return the error for a key where there are none."""
    return FileFormatError(f"{path} holds one array without keys; leave out key={shown(key)}.")


def check_declared(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Insist on what an array must be to be a load, as a file declares it, whatever its numbers are."""
    check_size(shape, name)
    if dtype.kind == "b":
        raise FileFormatError(f"{name} holds booleans; loads must be counts of tokens.")
    check_shape(shape, name, axis="step")


def from_array(array: Any, path: Path, place: str = "") -> LoadStatistics:
    """Return the statistics of one array or tensor read from ``path``; ``place`` is its key, if it has one."""
    name = f"{path}: {place or 'the array'}"
    values = as_numpy(array, name)
    check_declared(values.shape, values.dtype, name)
    check_values(in_parts(values), name, axis="step")
    return LoadStatistics(values, source=str(path))


def _from_values(value: Any, path: Path, place: str) -> LoadStatistics:
    if isinstance(value, np.ndarray):
        return from_array(value, path, place)
    if not isinstance(value, list) or not value:
        raise FileFormatError(
            f"{path}: {place or 'the document'} is {_kind(value)}; it must be a nested list of shape {_SHAPES}."
        )
    return from_array(_from_lists(value, f"{path}: {place}, " if place else f"{path}: "), path, place)


def _from_lists(value: list[Any], where: str) -> NDArray[np.float64]:
    """Return nested lists as an array, or name the first list that breaks a rule."""
    if isinstance(value[0], list) and value[0] and isinstance(value[0][0], list):
        steps = [_layers(step, f"{where}step {i}, ") for i, step in enumerate(value)]
        for i, step in enumerate(steps):
            if step.shape != steps[0].shape:
                raise FileFormatError(
                    f"{where}step {i} has shape {step.shape}, step 0 has {steps[0].shape}; every step needs the same."
                )
        return np.stack(steps)
    return _layers(value, where)


def _layers(rows: Any, where: str) -> NDArray[np.float64]:
    if not isinstance(rows, list) or not rows:
        raise FileFormatError(f"{where.removesuffix(', ')} is {_kind(rows)}; it must be a list of layers.")
    checked = []
    for layer, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            raise FileFormatError(f"{where}layer {layer} is {_kind(row)}; it must be a list of numbers.")
        if len(row) != len(rows[0]):
            raise FileFormatError(
                f"{where}layer {layer} has width {len(row)}, layer 0 has width {len(rows[0])}; "
                "every layer needs the same number of experts."
            )
        # One set a row keeps this off the clock; bool is a kind of int that numpy would let through.
        if not {int, float}.issuperset(map(type, row)):
            expert = next(i for i, cell in enumerate(row) if type(cell) not in (int, float))
            raise FileFormatError(
                f"{where}layer {layer}, expert {expert} is {_kind(row[expert])}; it must be a number."
            )
        try:
            checked.append(np.array(row, dtype=np.float64))
        except OverflowError:  # an int has no largest value, a float64 has
            raise FileFormatError(f"{where}layer {layer} holds a number that float64 cannot hold.") from None
    return np.stack(checked)


def _kind(value: Any) -> str:
    """Return a short name for what stands where something else belongs, in JSON's words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "an object with keys" if isinstance(value, Mapping) else shown(value)


def _read_counts(document: Mapping[Any, Any], path: Path) -> LoadStatistics:
    key = choose_key(list(document), None, path)
    return _with_ids(_from_values(document[key], path, key), document)


def _with_ids(load: LoadStatistics, document: Mapping[Any, Any]) -> LoadStatistics:
    """Return a load with the layer ids that stand beside its counts, if any do."""
    ids = document.get(LAYER_IDS)
    return load if ids is None else replace(load, layer_ids=ids)


def is_by_layer(document: Mapping[Any, Any]) -> bool:
    """Whether each key names another layer, ``layer_3`` say, and holds a row: a list, or an array with one axis."""
    named = [whole_in(key) if isinstance(key, str) and "layer" in key.lower() else None for key in document]
    rows = all(isinstance(row, list) or len(getattr(row, "shape", ())) == 1 for row in document.values())
    return rows and None not in named and 0 < len(set(named)) == len(document) <= MOST_LAYERS


def _read_by_layer(document: Mapping[Any, Any], path: Path) -> LoadStatistics:
    by_layer = sorted(((whole_in(key) or 0, row) for key, row in document.items()), key=lambda pair: pair[0])
    ids, rows = zip(*by_layer, strict=True)
    alike = {getattr(row, "shape", None) for row in rows}
    if len(alike) > 1:
        raise FileFormatError(f"{path}: the layers have different numbers of experts; every layer needs the same.")
    values = list(rows) if alike == {None} else np.stack(rows)
    return replace(_from_values(values, path, "the layers"), layer_ids=ids)


LAYOUTS: tuple[Layout, ...] = (
    Layout("an SGLang recording", is_recording, read_recording),
    Layout("counts under a key", lambda document: any(key in document for key in COUNT_KEYS), _read_counts),
    Layout("a row under the name of each layer", is_by_layer, _read_by_layer),
)
