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
from equipoise.descent.swaps import improve
from equipoise.kernels.native import native
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
    first = _descend_rows
    if slots == 2:  # compiled only where it is needed, as is what goes further
        from equipoise.descent.pairing import pair_rows as first

    def plan(part: int) -> None:
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


@native
def _descend_rows(by_load, bits, max_gap, facts, held, stop):
    """Fill ``held`` [rows, ranks, slots] with first descents: fold, then improve."""
    _, num_ranks, slots = held.shape
    layer = new_layer(num_ranks, slots, by_load.shape[1], 0, stop)
    for row in range(len(by_load)):
        read_layer(layer, by_load[row], bits, facts[row])
        set_target(layer, max_gap)
        fold(layer)
        improve(layer, layer.facts[TARGET], NEVER)
        keep(layer)
        further = slots > 1 and layer.facts[REACHED] > layer.facts[TARGET]
        layer.facts[AIM] = layer.facts[REACHED] if further else -1
        write_layer(layer, by_load[row], bits, facts[row], held[row])
