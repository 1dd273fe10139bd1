"""Joint descent of one layer after the other; see the folder's contract."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds.table import raise_floor
from equipoise.descent.counts import set_target
from equipoise.descent.facts import AIM, BOUND, EFFORT, FLOOR, NEVER, REACHED, TARGET
from equipoise.descent.fold import fold
from equipoise.descent.layer import keep, new_layer, read_layer, write_layer
from equipoise.descent.swaps import MANY, level_few, level_several, redeal_first
from equipoise.kernels.native import internal, native
from equipoise.threads import for_each, num_threads

__all__ = ["plan_rows"]


def plan_rows(
    weight: NDArray[np.int64],
    names: NDArray[Any],
    facts: NDArray[np.int64],
    held: NDArray[np.int32],
    max_gap: float,
    threads: int | None,
    stop: NDArray[np.bool_],
) -> None:
    """Plan every row of ``weight`` into ``held`` and ``facts``; see the folder's contract."""
    rows, _, slots = held.shape
    parts = min(2 * num_threads(threads), rows)  # blocks of rows, contiguous: other strides would be compiled anew
    edges = [rows * part // parts for part in range(parts + 1)]
    first = descend_few if slots <= 3 else descend_several if held.shape[1] < MANY else descend_wide
    if slots == 2:  # compiled only where it is needed, as is what goes further
        from equipoise.descent.pairing import pair_rows as first

    def plan(part: int) -> None:
        """Plan the rows of a part."""
        block = slice(edges[part], edges[part + 1])
        bits = int(names[block].max()).bit_length()
        # One integer has load and expert, so that one sort orders both.
        by_load = (~weight[block] << bits) | names[block]
        by_load.sort(axis=1)
        first(by_load, bits, max_gap, facts[block], held[block], stop)
        hard = np.flatnonzero((facts[block, AIM] >= 0) & (facts[block, EFFORT] > 0))
        if len(hard):
            from equipoise.descent.further import search_rows  # half the code, and most models never need it

            found = facts[block][hard], held[block][hard]
            known, reached = found[0][:, BOUND], found[0][:, REACHED]
            found[0][:, FLOOR] = raise_floor(weight[block][hard], held.shape[1], slots, known, reached)
            search_rows(by_load[hard], bits, max_gap, *found, stop)
            facts[block][hard], held[block][hard] = found

    for_each(plan, range(parts), threads)


# First descents: fold, then what ``improve`` does with so many slots a rank and so many ranks, and only that. The code
# for the other shapes would take as long to compile once more.


@native
def descend_few(by_load, bits, max_gap, facts, held, stop):
    """Fill ``held`` [rows, ranks, slots] where ranks have at most three slots."""
    layer = new_layer(held.shape[1], held.shape[2], by_load.shape[1], np.int64(0), stop)
    for row in range(len(by_load)):
        _begin(layer, by_load[row], bits, facts[row], max_gap)
        if held.shape[2] == 3 or held.shape[1] >= MANY:
            redeal_first(layer, layer.facts[TARGET])
        level_few(layer, layer.facts[TARGET], NEVER)
        _end(layer, by_load[row], bits, facts[row], held[row])


@native
def descend_several(by_load, bits, max_gap, facts, held, stop):
    """Fill ``held`` [rows, ranks, slots] where ranks have more."""
    layer = new_layer(held.shape[1], held.shape[2], by_load.shape[1], np.int64(0), stop)
    for row in range(len(by_load)):
        _begin(layer, by_load[row], bits, facts[row], max_gap)
        level_several(layer, layer.facts[TARGET], NEVER)
        _end(layer, by_load[row], bits, facts[row], held[row])


@native
def descend_wide(by_load, bits, max_gap, facts, held, stop):
    """Fill ``held`` [rows, ranks, slots] where ranks have more, and are many."""
    layer = new_layer(held.shape[1], held.shape[2], by_load.shape[1], np.int64(0), stop)
    for row in range(len(by_load)):
        _begin(layer, by_load[row], bits, facts[row], max_gap)
        redeal_first(layer, layer.facts[TARGET])
        level_several(layer, layer.facts[TARGET], NEVER)
        _end(layer, by_load[row], bits, facts[row], held[row])


@internal
def _begin(layer, by_load, bits, facts, max_gap):
    """Read a layer and deal all its replicas."""
    read_layer(layer, by_load, bits, facts)
    set_target(layer, max_gap)
    fold(layer)


@internal
def _end(layer, by_load, bits, facts, held):
    """Keep what was found, and say what a search beyond may aim for: -1 where none makes sense."""
    keep(layer)
    layer.facts[AIM] = layer.facts[REACHED] if layer.facts[REACHED] > layer.facts[TARGET] else -1
    write_layer(layer, by_load, bits, facts, held)
