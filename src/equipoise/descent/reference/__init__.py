"""Joint descent in plain Python, slow: what every implementation of the folder's contract must return, bit for bit.

Each file says in the simplest way what the file of its name in the folder above does quickly. The numbers that rule a
whole search are those of ``tuning.py``; those that rule one step are written in both files.

Of choices that are equally good the first that is looked at is taken, so the order of every loop is part of what is
promised. So is the work, because it decides where a search ends. It is counted in steps: one each time that a search
asks whether it may go on, which it does before each swap, each rank that it fills, each step of trades and each T of a
pairing, and where * stands below; and besides

    improve    for each rank that the heaviest is compared with, 6 a slot, or, for pairs, * 20 a pair of slots
    level      10 a replica and 10 an expert, to put all replicas in line
               for each replica of a rank 5, and 3 for each that it is compared with, unless one is enough for both
    chains     * 1 for each replica in line below one of the heaviest rank
               for each replica of the second rank 5, and 5 for each that it is compared with, unless one is enough
    redeal     * for each round, 20 a rank and 1 a slot
    squeeze    10 for each slot and each pair of slots
               for each rank that another is compared with, 3 a slot and 3 a pair of slots, and 5 for each exchange
    trade      * 25 an expert, for each that may lose a slot; 20 a slot, for each trade that is tried
    pairing    * 40 an expert and 40 a rank, for each slot that may be moved
    exact      75 for each count and each rank that is tried
    starts     * 50 a slot, for other counts; * 10 a slot and twice the square of the ranks, for another deal
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds.table import raise_floor
from equipoise.descent.facts import AIM, BOUND, EFFORT, FLOOR, NEVER, REACHED, TARGET
from equipoise.descent.reference.counts import set_target
from equipoise.descent.reference.fold import fold
from equipoise.descent.reference.further import search_further
from equipoise.descent.reference.layer import Layer
from equipoise.descent.reference.pairing import pair_layer
from equipoise.descent.reference.swaps import improve

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
    """Plan every row of ``weight`` into ``held`` and ``facts``; see the folder's contract. ``threads`` are not used."""
    _, num_ranks, slots = held.shape
    for row in range(len(weight)):
        numbers = np.lexsort((names[row], -weight[row]))  # descending by load, ascending by name
        layer = Layer(weight[row, numbers].tolist(), num_ranks, slots, facts[row].tolist(), stop)
        first_descent(layer, max_gap)
        if layer.facts[AIM] >= 0 and layer.facts[EFFORT] > 0:
            known, reached = np.array([layer.facts[BOUND]]), np.array([layer.facts[REACHED]])
            layer.facts[FLOOR] = int(raise_floor(weight[row : row + 1], num_ranks, slots, known, reached)[0])
            search_further(layer, max_gap)
        held[row] = names[row, numbers][layer.best]
        facts[row] = layer.facts


def first_descent(layer: Layer, max_gap: float) -> None:
    """Deal the replicas of the best counts and level them; set what a search beyond may aim for, or -1 for none."""
    facts = layer.facts
    set_target(layer, max_gap)
    if layer.slots == 2:
        facts[AIM] = pair_layer(layer, max_gap)
        return
    fold(layer)
    improve(layer, facts[TARGET], NEVER)
    layer.keep()
    facts[AIM] = facts[REACHED] if facts[REACHED] > facts[TARGET] else -1
