"""From a table with named columns to ``LoadStatistics``: a row a count, or a row a layer; one is never the other.

====================  ==============================================================================
table                 how it is known
====================  ==============================================================================
long                  a column that names the expert: one count a row, beside layer, step and rank
wide                  a column for each expert, beside an index, a layer or a step; without names too
====================  ==============================================================================

A pair of layer and expert that has no row in a long table counts as 0. Rows of several ranks are summed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import check_loads
from equipoise.errors import FileFormatError, listed, shown
from equipoise.limits import MOST_LAYERS, MOST_SLOTS
from equipoise.load.columns import COUNT, DERIVED, EXPERT, INDEX, LAYER, RANK, SLOT, STEP, Column, columns_of
from equipoise.load.documents import from_array, no_keys
from equipoise.load.statistics import LoadStatistics

__all__ = ["Layout", "is_header", "layout_of", "read_rows"]

log = logging.getLogger("equipoise")
Floats = NDArray[np.float64]

SPARSE = (1 << 22, 256)
"""A long table may stand for so many counts, or for so many times its rows, whichever is more."""


@dataclass(frozen=True)
class Layout:
    """What each column of a table is: ``keys`` say which counts a row holds, ``values`` are counts."""

    columns: tuple[Column, ...]
    keys: tuple[int, ...]
    values: tuple[int, ...]
    is_long: bool

    def is_in_use(self, column: int) -> bool:
        """Whether the cells of a column must be numbers."""
        return column in self.keys or column in self.values


def is_header(cells: Sequence[float | None]) -> bool:
    """Whether a first line, as numbers and None, names columns: words, or the numbers 0 to E - 1 in any order."""
    if any(cell is None for cell in cells):
        return True
    return len(cells) > 1 and sorted(c for c in cells if c is not None) == list(range(len(cells)))


def layout_of(names: Sequence[str], path: Path, key: str | None = None) -> Layout:
    """Decide from its names what each column of a table is.

    Raises
    ------
    FileFormatError
        If a name comes twice, or no reading of them is safe. The message names the column.
    """
    columns = columns_of(names)
    plain = [column.name for column in columns if column.name]
    twice = next((name for name in plain if plain.count(name) > 1), None) if len(set(plain)) < len(plain) else None
    if twice is not None:
        raise FileFormatError(f"{path} has two columns called {shown(twice)}; keep one of them.")
    roles: dict[str | None, list[int]] = {}
    for i, column in enumerate(columns):
        if column.number is None:
            roles.setdefault(column.role, []).append(i)
    numbered = [i for i, column in enumerate(columns) if column.number is not None]
    if SLOT in roles and len(numbered) < 2:
        raise FileFormatError(
            f"{path} counts by slot (column {shown(columns[roles[SLOT][0]].name)}), which says nothing about experts "
            "without the placement in force; name a file of counts by logical expert."
        )
    if EXPERT in roles and len(numbered) < 2:
        return _long(columns, roles, path, key)
    if EXPERT in roles and all(columns[i].role == LAYER for i in numbered):  # rows are experts, columns layers
        return Layout(tuple(columns), tuple(roles[EXPERT]), tuple(numbered), False)
    return _wide(columns, roles, numbered, path, key)


def _long(columns: list[Column], roles: dict[str | None, list[int]], path: Path, key: str | None) -> Layout:
    for role in (LAYER, EXPERT, STEP, RANK):
        if len(roles.get(role, ())) > 1:
            names = listed(columns[i].name for i in roles[role])
            raise FileFormatError(f"{path} has several columns for the {role}: {names}; keep one of them.")
    counts = roles.get(COUNT, [])
    if key is not None:
        counts = [i for i, column in enumerate(columns) if column.name == key]
        if not counts:
            raise FileFormatError(f"{path} has no column {shown(key)}; it has {listed(c.name for c in columns)}.")
    elif (
        not counts
    ):  # one column that is left over can only be the counts; pandas calls those of a series 0, or nothing
        counts = [i for i, column in enumerate(columns) if column.role is None or column.number is not None]
        counts = counts or [i for i in roles.get(INDEX, ()) if i == len(columns) - 1]
    if len(counts) != 1:
        names = listed(columns[i].name for i in counts) if counts else listed(c.name for c in columns)
        raise FileFormatError(
            f"{path} names experts, and {'several columns could be' if counts else 'no column is'} their counts: "
            f"{names}. {'Name one of them as key' if counts else 'Call one count'}."
        )
    keys = tuple(roles[role][0] for role in (LAYER, EXPERT, STEP, RANK) if role in roles)
    return Layout(tuple(columns), keys, (counts[0],), True)


def _wide(
    columns: list[Column], roles: dict[str | None, list[int]], numbered: list[int], path: Path, key: str | None
) -> Layout:
    if key is not None:
        raise no_keys(path, key)
    bare = roles.get(None, []) + roles.get(COUNT, []) + roles.get(DERIVED, [])
    keys = [i for role in (LAYER, STEP, INDEX) for i in roles.get(role, ())]
    if RANK in roles:
        raise FileFormatError(
            f"{path} has a column {shown(columns[roles[RANK][0]].name)}; a load is the sum over ranks. Sum them first."
        )
    if numbered:
        others = {columns[i].role for i in numbered} & {STEP, RANK, SLOT}
        if others:
            raise FileFormatError(
                f"{path} has a column for each {others.pop()}; a load has a column for each expert, or a row for each "
                "layer and expert."
            )
        odd = [i for i in roles.get(None, ()) if columns[i].name]
        if odd:
            raise FileFormatError(
                f"{path}, line 1, column {odd[0] + 1} holds {shown(columns[odd[0]].name)} beside the numbers of "
                "experts; name it layer or step, or remove it."
            )
        return Layout(tuple(columns), tuple(keys), tuple(numbered), False)
    if COUNT in roles and (keys or len(bare) == 1):
        raise FileFormatError(
            f"{path} has a column {shown(columns[roles[COUNT][0]].name)} and none that names the expert; "
            f"its columns are {listed(c.name for c in columns)}. Add the expert of each row."
        )
    return Layout(tuple(columns), tuple(keys), tuple(sorted(bare)), False)


def read_rows(rows: Floats, layout: Layout | None, path: Path, first: int) -> LoadStatistics:
    """Return the load in the rows of a table: numbers, with 0 in columns that are not in use.

    Parameters
    ----------
    rows : float64 array, shape (rows, columns)
    layout : Layout or None
        What the columns are; None where nothing names them.
    path : Path
    first : int
        The line of the first row, for errors.

    Raises
    ------
    FileFormatError
        If the rows fit no reading of the columns. The message names a line.
    """
    if layout is None:
        return _unnamed(rows, path, first)
    if layout.is_long:
        return _read_long(rows, layout, path, first)
    return _read_wide(rows, layout, path, first)


def _unnamed(rows: Floats, path: Path, first: int) -> LoadStatistics:
    """Read rows of counts; refuse rows of layer, expert and count, which want a header."""
    height, width = rows.shape
    if width in (3, 4) and height > 3:
        pairs = rows[:, :-1]
        experts = pairs[:, -1]
        grid = np.unique(pairs, axis=0)
        each = len(np.unique(experts))
        is_grid = len(grid) == height == each * len(np.unique(pairs[:, :-1], axis=0)) and each > 1
        if is_grid and sorted(set(experts.tolist())) == list(range(each)):
            raise FileFormatError(
                f"{path} looks like rows of layer, expert and count, and has no header; write "
                f"{'layer,expert,count' if width == 3 else 'step,layer,expert,count'} in its first line."
            )
    counts_up = height > 1 and np.array_equal(rows[:, 0], np.arange(height))
    if counts_up and width > 4 and (width - 1) % 4 == 0:
        rows = rows[:, 1:]  # an index: no model has a number of experts that four divides, and one more
    elif counts_up and height > 2:
        log.warning("%s: the first column, which counts from 0, is read as expert 0; if not, call it index.", path)
    if width > 7 and np.array_equal(rows[0], np.arange(1, rows.shape[1] + 1)):
        log.warning("%s: line %d, which counts from 1, is read as a layer; if it is a header, remove it.", path, first)
    return from_array(rows, path, "the table")


def _read_wide(rows: Floats, layout: Layout, path: Path, first: int) -> LoadStatistics:
    columns = layout.columns
    values = rows[:, _in_order(layout, path)]
    roles = {columns[i].role: i for i in layout.keys}
    unnamed = [rows[:, i] for i in layout.keys if columns[i].role == INDEX]
    if LAYER not in roles and any(not np.array_equal(unnamed[0], other) for other in unnamed[1:]):
        raise FileFormatError(
            f"{path} has {len(unnamed)} columns without a name before its counts; call them step and layer, or layer "
            "and expert where each line holds one count."
        )
    if EXPERT in roles or _are_layers(layout):
        order = np.argsort(_whole(rows[:, roles[EXPERT]], "the expert", path, first)) if EXPERT in roles else None
        turned = values[order].T if order is not None else values.T
        ids = [columns[i].number or 0 for i in sorted(layout.values, key=lambda i: columns[i].number or 0)]
        return _named(turned[None], ids, path)
    if STEP not in roles and len(rows) > MOST_LAYERS:
        raise FileFormatError(f"{path} has more than {MOST_LAYERS:,} lines, which no model has layers.")
    if STEP in roles:
        steps = rows[:, roles[STEP]]
        if LAYER not in roles:
            raise FileFormatError(
                f"{path} has a column {shown(columns[roles[STEP]].name)} and none that names the layer; add it."
            )
        layers = _whole(rows[:, roles[LAYER]], "the layer", path, first)
        return _by_step(values, steps, layers, path, first)
    name = LAYER if LAYER in roles else INDEX
    if name not in roles:
        return from_array(values, path, "the table")
    layers = _whole(rows[:, roles[name]], "the layer", path, first)
    if len(np.unique(layers)) < len(layers):
        row = _first_repeat(layers)
        raise FileFormatError(
            f"{path}, line {first + row} is a second line of layer {int(layers[row])}; name the steps in a column step."
        )
    order = np.argsort(layers, kind="stable")
    return _named(values[None, order], layers[order].tolist(), path)


def _by_step(values: Floats, steps: Floats, layers: Floats, path: Path, first: int) -> LoadStatistics:
    step_ids, step = np.unique(steps, return_inverse=True)
    layer_ids, layer = np.unique(layers, return_inverse=True)
    step, layer = step.reshape(-1), layer.reshape(-1)
    check_loads(len(step_ids), len(layer_ids), values.shape[1], str(path))
    repeated = _first_repeat(steps, layers)
    if repeated >= 0:
        raise FileFormatError(
            f"{path}, line {first + repeated} is a second line of step {_plain(steps[repeated])}, layer "
            f"{int(layers[repeated])}; keep one of them."
        )
    if len(values) < len(step_ids) * len(layer_ids):
        raise FileFormatError(
            f"{path} has {len(step_ids)} steps and {len(layer_ids)} layers in {len(values)} lines; every step needs "
            "every layer."
        )
    tokens = np.zeros((len(step_ids), len(layer_ids), values.shape[1]))
    tokens[step, layer] = values
    return _named(tokens, layer_ids.tolist(), path)


def _read_long(rows: Floats, layout: Layout, path: Path, first: int) -> LoadStatistics:
    columns = layout.columns
    place = {columns[i].role: i for i in layout.keys}
    found = {role: rows[:, i] if role == STEP else _whole(rows[:, i], f"the {role}", path, first)
             for role, i in place.items()}  # fmt: skip
    repeated = _first_repeat(*found.values())
    if repeated >= 0:
        where = ", ".join(f"{role} {_plain(values[repeated])}" for role, values in found.items())
        raise FileFormatError(
            f"{path}, line {first + repeated} is a second line of {where}; name what tells them apart in a column "
            "step, or sum them."
        )
    experts = found[EXPERT].astype(np.int64)
    from_one = experts.min() == 1 and experts.max() % 4 == 0  # E + 1 experts, none of whose first, are of no model
    if from_one:
        experts -= 1
        log.warning("%s names experts 1 to %d, which are read as 0 to %d.", path, experts.max() + 1, experts.max())
    nothing = np.zeros(len(rows))
    layer_ids, layer = np.unique(found.get(LAYER, nothing), return_inverse=True)
    step_ids, step = np.unique(found.get(STEP, nothing), return_inverse=True)
    shape = (len(step_ids), len(layer_ids), int(experts.max()) + 1)
    if shape[2] > MOST_SLOTS:
        raise FileFormatError(f"{path} names expert {shape[2] - 1:,}; at most {MOST_SLOTS:,} experts are planned for.")
    check_loads(*shape, str(path))
    cells = int(np.prod(shape))
    least, times = SPARSE
    if cells > max(least, times * len(rows)):
        raise FileFormatError(
            f"{path} has {len(rows):,} rows for {shape[0]:,} steps, {shape[1]:,} layers and {shape[2]:,} experts, "
            "nearly all of them without a count. Check the columns."
        )
    cell = (step.reshape(-1) * shape[1] + layer.reshape(-1)) * shape[2] + experts
    tokens = np.asarray(np.bincount(cell, rows[:, layout.values[0]], cells).reshape(shape), dtype=np.float64)
    pairs = np.unique(layer.reshape(-1) * shape[2] + experts)
    missing = shape[1] * shape[2] - len(pairs)
    if missing:
        log.warning(
            "%s has no row for %d of %d pairs of layer and expert, which count as 0 tokens; experts are 0 to %d.",
            path, missing, shape[1] * shape[2], shape[2] - 1,
        )  # fmt: skip
    return _named(tokens, layer_ids.tolist(), path)


def _in_order(layout: Layout, path: Path) -> list[int]:
    """Return the columns of counts by the number at the end of their names, where all have one."""
    values = list(layout.values)
    numbers = [layout.columns[i].number for i in values]
    known = [number for number in numbers if number is not None]
    if len(known) < len(values):
        return values
    values.sort(key=lambda i: layout.columns[i].number or 0)
    if _are_layers(layout):
        return values
    known.sort()
    start = known[0] if known[0] in (0, 1) else 0
    for number, expected in zip(known, range(start, start + len(known)), strict=True):
        if number != expected:
            raise FileFormatError(
                f"{path} has columns for experts up to {known[-1]} and none for expert {expected}; add it, with 0 "
                "where it got no token."
                if number > expected
                else f"{path} has two columns for expert {number}; keep one of them."
            )
    return values


def _are_layers(layout: Layout) -> bool:
    return all(layout.columns[i].role == LAYER and layout.columns[i].number is not None for i in layout.values)


def _named(tokens: Floats, layer_ids: Sequence[float], path: Path) -> LoadStatistics:
    ids = tuple(int(layer) for layer in layer_ids)
    read = from_array(tokens, path, "the table")
    return LoadStatistics(read.tokens_per_expert, source=str(path), layer_ids=ids)


def _whole(values: Floats, what: str, path: Path, first: int) -> Floats:
    wrong = values != np.floor(values)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FileFormatError(f"{path}, line {first + row}: {what} is {values[row]}; it must be a whole number.")
    return values


def _plain(value: float) -> int | float:
    """Return a number as it would be written."""
    return int(value) if value.is_integer() else float(value)


def _first_repeat(*keys: Floats) -> int:
    """Return the first row whose keys are those of an earlier one, -1 if there is none."""
    code = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        values, place = np.unique(key, return_inverse=True)
        _, code = np.unique(code * len(values) + place.reshape(-1), return_inverse=True)
    _, where = np.unique(code, return_index=True)
    if len(where) == len(code):
        return -1
    fresh = np.zeros(len(code), dtype=np.bool_)
    fresh[where] = True
    return int(np.argmin(fresh))
