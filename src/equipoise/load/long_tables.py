"""Tables with a row for each count: layer, expert, tokens, perhaps step and rank, in any order.

A pair of layer and expert that has no row counts as 0. Rows of several ranks are summed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import check_loads
from equipoise.errors import FileFormatError
from equipoise.limits import MOST_SLOTS
from equipoise.load.columns import EXPERT, LAYER, STEP
from equipoise.load.keys import first_repeat, named, plain, whole
from equipoise.load.layouts import Layout
from equipoise.load.statistics import LoadStatistics

__all__ = ["LongRows", "long_rows", "read_long"]

log = logging.getLogger("equipoise")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SPARSE = (1 << 22, 256)
"""A long table may stand for so many counts, or for so many times its rows, whichever is more."""


@dataclass(frozen=True, eq=False)
class LongRows:
    """Counts one by one: of which step, layer and expert each is, all three counted from 0, and its tokens.

    ``shape`` is (steps, layers, experts), ``layer_ids`` the model's ids of the layers.
    """

    step: Ints
    layer: Ints
    expert: Ints
    tokens: Floats
    shape: tuple[int, int, int]
    layer_ids: tuple[int, ...]


def read_long(rows: Floats, layout: Layout, path: Path, first: int) -> LoadStatistics:
    """Return the load in the rows of a long table, each step a window.

    Raises
    ------
    FileFormatError
        If a key is no whole number, a row is there twice, or next to none of the counts have a row.
    """
    long = long_rows(rows, layout, path, first)
    steps, layers, experts = long.shape
    check_loads(*long.shape, str(path))
    cells = int(np.prod(long.shape))
    least, times = SPARSE
    if cells > max(least, times * len(rows)):
        raise FileFormatError(
            f"{path} has {len(rows):,} rows for {steps:,} steps, {layers:,} layers and {experts:,} experts, nearly all "
            "of them without a count. Check the columns."
        )
    cell = (long.step * layers + long.layer) * experts + long.expert
    tokens = np.asarray(np.bincount(cell, long.tokens, cells).reshape(long.shape), dtype=np.float64)
    missing = layers * experts - len(np.unique(long.layer * experts + long.expert))
    if missing:
        log.warning(
            "%s has no row for %d of %d pairs of layer and expert, which count as 0 tokens; experts are 0 to %d.",
            path, missing, layers * experts, experts - 1,
        )  # fmt: skip
    return named(tokens, long.layer_ids, path)


def long_rows(rows: Floats, layout: Layout, path: Path, first: int) -> LongRows:
    """Return the rows of a long table as counts, in their order; errors are those of ``read_long``."""
    place = {layout.columns[i].role: i for i in layout.keys}
    found = {
        role: rows[:, i] if role == STEP else whole(rows[:, i], f"the {role}", path, first) for role, i in place.items()
    }
    repeated = first_repeat(*found.values())
    if repeated >= 0:
        where = ", ".join(f"{role} {plain(values[repeated])}" for role, values in found.items())
        raise FileFormatError(
            f"{path}, line {first + repeated} is a second line of {where}; name what tells them apart in a column "
            "step, or sum them."
        )
    most = found[EXPERT].max()
    if most >= MOST_SLOTS:
        raise FileFormatError(f"{path} names expert {plain(most):,}; at most {MOST_SLOTS:,} experts are planned for.")
    expert = found[EXPERT].astype(np.int64)
    if expert.min() == 1 and most % 4 == 0:  # no model has a number of experts that four divides, and one more
        expert -= 1
        log.warning("%s names experts 1 to %d, which are read as 0 to %d.", path, most, most - 1)
    nothing = np.zeros(len(rows))
    layer_ids, layer = np.unique(found.get(LAYER, nothing), return_inverse=True)
    step_ids, step = np.unique(found.get(STEP, nothing), return_inverse=True)
    shape = (len(step_ids), len(layer_ids), int(expert.max()) + 1)
    ids = tuple(int(layer) for layer in layer_ids)
    return LongRows(step.reshape(-1), layer.reshape(-1), expert, rows[:, layout.values[0]], shape, ids)
