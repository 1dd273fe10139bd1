"""A placement that stays: from which batch on each of its replicas is active, and no weights move.

With one batch size or several, no batch gets slower than with every replica active. Starts are that, what is known to
have been in force, and, until each of the batches, as few active replicas as can be, as many on each rank as on others.
From all of them replicas fall asleep as long as that helps the batch that is worst off, see ``nested.py``, where a rank
that shares slots with no other has no step but that. What is fastest is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.assignment.numba import assign
from equipoise.timing.nested import nest_rows

if TYPE_CHECKING:
    from equipoise.timing.plan import InTime

__all__ = ["levels_of"]

ROUNDED = 1e-9  # relative; a time that is above another by less is not slower
ALONE = 1  # among how many ranks replicas may change places
FINE = 2**20  # parts of the busiest rank's tokens, of which replicas on it rather sleep
NEVER = np.int64(2**40)  # what it costs to sleep where one is not

Slots = NDArray[np.int32]
Levels = NDArray[np.int64]
Floats = NDArray[np.float64]


def levels_of(in_time: InTime, held: Slots, known: Sequence[Levels] = ()) -> Levels:
    """Return from which batch on each slot of ``held`` int32 [layers, ranks, slots] is active, by number.

    int64, same shape; the number of batches where it sleeps in all. Every slot of ``held`` has an expert, and every
    expert a slot. ``known`` are levels to start from too.
    """
    sizes, every = len(in_time.tokens), np.arange(len(held))
    best = np.zeros(held.shape, np.int64)
    most = np.stack([in_time.times(each, every, held) for each in in_time.ordered], axis=1)
    times = _lowered(in_time, held, best, most)
    asleep = np.stack([_asleep(*each) for each in zip(held, in_time.tokens[0], strict=True)])
    for level in (*known, *(np.where(asleep, later, 0) for later in range(1, sizes + 1))):
        level = level.copy()
        found = _lowered(in_time, held, level, most)
        better = (found <= most * (1.0 + ROUNDED)).all(axis=1) & (_parts(found, most) < _parts(times, most))
        best[better], times[better] = level[better], found[better]
    return best


def _asleep(held: Slots, tokens: Floats) -> NDArray[np.bool_]:
    """Return which slots of one layer may sleep, so that one replica of each expert is awake, as many on each rank.

    An assignment: of each expert all replicas but one are to sleep, each on a rank that holds it, and so many on each
    rank; rather on ranks that have most tokens. Where there is none, more replicas stay awake.
    """
    ranks, number = len(held), np.bincount(held.ravel(), minlength=len(tokens))
    asleep = np.zeros(held.shape, np.bool_)
    rows = np.repeat(np.arange(len(tokens)), number - 1)
    if not len(rows):
        return asleep
    each = -(-len(rows) // ranks)
    load = (tokens / number)[held].sum(axis=1)
    holds = np.zeros((len(tokens), ranks), np.bool_)
    holds[held, np.arange(ranks)[:, None]] = True
    rather = np.rint(FINE * (1.0 - load / max(load.max(), 1e-300))).astype(np.int64)
    cost = np.full((ranks * each, each, ranks), NEVER)
    cost[: len(rows)] = np.where(holds[rows], rather, NEVER)[:, None]
    cost[len(rows) :, -1] = 0  # what is left of a rank's part is its last
    for column, row in enumerate(assign(cost.reshape(len(cost), -1)).tolist()):
        if row < len(rows):
            there = np.flatnonzero((held[column % ranks] == rows[row]) & ~asleep[column % ranks])
            asleep[column % ranks, there[:1]] = True
    return asleep


def _lowered(in_time: InTime, held: Slots, level: Levels, most: Floats) -> Floats:
    """Put replicas to sleep in ``level``, in place; return what the busiest ranks take [layers, batches]."""
    times = np.where(most > 0, most, 1.0)
    tokens = np.stack(in_time.tokens, axis=1)
    there = held.copy()  # which stays as it is, but native code may write to it

    def lower(some: slice) -> None:
        nest_rows(in_time.curve, tokens[some], times[some], there[some], level[some], (ALONE, 0, np.bool_(True)))

    in_time.each(lower, len(held))
    return times


def _parts(times: Floats, most: Floats) -> Floats:
    """Return what batches take together [layers], each in parts of the most that it may."""
    return np.asarray((times / np.maximum(most, 1e-300)).sum(axis=1))
