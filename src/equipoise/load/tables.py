"""From a table with named columns to ``LoadStatistics``: a row a count, or a row a layer; one is never the other.

====================  ==============================================================================
table                 how it is known
====================  ==============================================================================
long                  a column that names the expert: one count a row, beside layer, step and rank
wide                  a column for each expert, beside an index, a layer or a step; without names too
turned                a column for each layer, beside the expert of the row
crossed               a column for each layer and expert, beside an index or a step: a row is a step
====================  ==============================================================================

What long rows become is in ``long_tables.py``.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import check_loads
from equipoise.errors import FileFormatError, shown
from equipoise.limits import MOST_LAYERS
from equipoise.load.columns import EXPERT, INDEX, LAYER, STEP
from equipoise.load.documents import from_array
from equipoise.load.keys import first_repeat, named, plain, whole
from equipoise.load.layouts import Layout, layout_of
from equipoise.load.long_tables import read_long
from equipoise.load.statistics import LoadStatistics

__all__ = ["read_rows"]

log = logging.getLogger("equipoise")
Floats = NDArray[np.float64]


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
        return read_long(rows, layout, path, first)
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
    if height > 2 and width > 3 and _is_grid(rows[:2]):
        raise FileFormatError(
            f"{path} has two lines that number its columns, and none says which is the layer; name them as L0_E0."
        )
    counts_up = height > 1 and np.array_equal(rows[:, 0], np.arange(height))
    if counts_up and width > 4 and (width - 1) % 4 == 0:
        rows = rows[:, 1:]  # an index: no model has a number of experts that four divides, and one more
    elif counts_up and height > 2:
        log.warning("%s: the first column, which counts from 0, is read as expert 0; if not, call it index.", path)
    if width > 7 and np.array_equal(rows[0], np.arange(1, rows.shape[1] + 1)):
        log.warning("%s: line %d, which counts from 1, is read as a layer; if it is a header, remove it.", path, first)
    return from_array(rows, path, "the table")


def _is_grid(numbers: Floats) -> bool:
    """Whether two lines of numbers hold each pair of 0 to A - 1 and 0 to B - 1 once."""
    sizes = [len(np.unique(line)) for line in numbers]
    each_once = len(np.unique(numbers, axis=1).T) == numbers.shape[1] == sizes[0] * sizes[1]
    from_zero = all(np.array_equal(np.unique(line), np.arange(size)) for line, size in zip(numbers, sizes, strict=True))
    return each_once and from_zero and min(sizes) > 1


def _read_wide(rows: Floats, layout: Layout, path: Path, first: int) -> LoadStatistics:
    columns = layout.columns
    if columns[layout.values[0]].layer is not None:
        return _read_crossed(rows, layout, path, first)
    values = rows[:, _in_order(layout, path)]
    roles = {columns[i].role: i for i in layout.keys}
    unnamed = [rows[:, i] for i in layout.keys if columns[i].role == INDEX]
    if LAYER not in roles and any(not np.array_equal(unnamed[0], other) for other in unnamed[1:]):
        raise FileFormatError(
            f"{path} has {len(unnamed)} columns without a name before its counts; call them step and layer, or layer "
            "and expert where each line holds one count."
        )
    if layout.is_turned:
        if EXPERT in roles:
            experts = whole(rows[:, roles[EXPERT]], "the expert", path, first)
            _check_all(np.sort(experts).astype(np.int64).tolist(), "lines", path)
            values = values[np.argsort(experts)]
        ids = [columns[i].number or 0 for i in sorted(layout.values, key=lambda i: columns[i].number or 0)]
        return named(values.T[None], ids, path)
    if STEP not in roles and len(rows) > MOST_LAYERS:
        raise FileFormatError(f"{path} has more than {MOST_LAYERS:,} lines, which no model has layers.")
    if STEP in roles:
        steps = rows[:, roles[STEP]]
        if LAYER not in roles:
            raise FileFormatError(
                f"{path} has a column {shown(columns[roles[STEP]].name)} and none that names the layer; add it."
            )
        layers = whole(rows[:, roles[LAYER]], "the layer", path, first)
        return _by_step(values, steps, layers, path, first)
    name = LAYER if LAYER in roles else INDEX
    if name not in roles:
        return from_array(values, path, "the table")
    layers = whole(rows[:, roles[name]], "the layer", path, first)
    if len(np.unique(layers)) < len(layers):
        row = first_repeat(layers)
        raise FileFormatError(
            f"{path}, line {first + row} is a second line of layer {int(layers[row])}; name the steps in a column step."
        )
    order = np.argsort(layers, kind="stable")
    return named(values[None, order], layers[order].tolist(), path)


def _read_crossed(rows: Floats, layout: Layout, path: Path, first: int) -> LoadStatistics:
    """Read each row as a step, and each cell of it as a row of a long table."""
    columns, keys = layout.columns, [i for i in layout.keys if layout.columns[i].role == STEP]
    steps = rows[:, keys[0]] if keys else np.arange(len(rows), dtype=np.float64)
    repeated = first_repeat(steps)
    if repeated >= 0:
        raise FileFormatError(f"{path}, line {first + repeated} is a second line of step {plain(steps[repeated])}.")
    pairs = [(columns[i].layer or 0, columns[i].number or 0) for i in layout.values]
    twice = next((pair for pair in pairs if pairs.count(pair) > 1), None) if len({*pairs}) < len(pairs) else None
    if twice is not None:
        raise FileFormatError(f"{path} has two columns for layer {twice[0]}, expert {twice[1]}; keep one of them.")
    layers, experts = np.array(pairs, dtype=np.float64).T
    long = (np.repeat(steps, len(pairs)), *(np.tile(each, len(rows)) for each in (layers, experts)))
    counts = rows[:, layout.values].reshape(-1)
    return read_long(np.stack([*long, counts], axis=1), layout_of((STEP, LAYER, EXPERT, "count"), path), path, first)


def _by_step(values: Floats, steps: Floats, layers: Floats, path: Path, first: int) -> LoadStatistics:
    step_ids, step = np.unique(steps, return_inverse=True)
    layer_ids, layer = np.unique(layers, return_inverse=True)
    step, layer = step.reshape(-1), layer.reshape(-1)
    check_loads(len(step_ids), len(layer_ids), values.shape[1], str(path))
    repeated = first_repeat(steps, layers)
    if repeated >= 0:
        raise FileFormatError(
            f"{path}, line {first + repeated} is a second line of step {plain(steps[repeated])}, layer "
            f"{int(layers[repeated])}; keep one of them."
        )
    if len(values) < len(step_ids) * len(layer_ids):
        raise FileFormatError(
            f"{path} has {len(step_ids)} steps and {len(layer_ids)} layers in {len(values)} lines; every step needs "
            "every layer."
        )
    tokens = np.zeros((len(step_ids), len(layer_ids), values.shape[1]))
    tokens[step, layer] = values
    return named(tokens, layer_ids.tolist(), path)


def _in_order(layout: Layout, path: Path) -> list[int]:
    """Return the columns of counts by the number at the end of their names, where all have one."""
    values = list(layout.values)
    numbers = [layout.columns[i].number for i in values]
    known = [number for number in numbers if number is not None]
    if len(known) < len(values):
        return values
    values.sort(key=lambda i: layout.columns[i].number or 0)
    if layout.is_turned:
        return values
    _check_all(sorted(known), "columns", path)
    return values


def _check_all(experts: list[int], where: str, path: Path) -> None:
    """Insist on each expert once, from 0 or 1 on, in ascending order; ``where`` they stand, lines or columns."""
    start = experts[0] if experts[0] in (0, 1) else 0
    for number, expected in zip(experts, range(start, start + len(experts)), strict=True):
        if number != expected:
            raise FileFormatError(
                f"{path} has {where} for experts up to {experts[-1]} and none for expert {expected}; add it, with 0 "
                "where it got no token."
                if number > expected
                else f"{path} has two {where} for expert {number}; keep one of them."
            )
