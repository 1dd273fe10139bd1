"""A placement that stays: from which batch on each of its replicas is active, and no weights move.

With one batch size or several, no batch gets slower than with every replica active. Starts are that, what is known to
have been in force, and, until each of the batches, one active replica of each expert, chosen by their number on each
rank or by what ranks take. From all of them replicas fall asleep as long as that helps the batch that is worst off, see
``nested.py``, where a rank that shares slots with no other has no step but that. What is fastest is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.assignment.numba import assign
from equipoise.timing.thin import thin_rows

if TYPE_CHECKING:
    from equipoise.timing.plan import InTime

__all__ = ["levels_of"]

ROUNDED = 1e-9  # relative; a time that is above another by less is not slower
ALONE = 1  # among how many ranks replicas may change places
FINE = 2**12  # parts of the busiest rank's tokens
NEVER = np.int64(2**46)  # what it costs to be awake where one is not

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
    thin, asleep = np.empty_like(best), [_asleep(*each) for each in zip(held, in_time.tokens[0], strict=True)]
    thin_rows(in_time.ordered[0], held, thin, 1)
    starts = (thin, np.array(asleep, np.int64))
    for level in (*known, *(start * later for later in range(1, sizes + 1) for start in starts)):
        level = level.copy()
        found = _lowered(in_time, held, level, most)
        better = (found <= most * (1.0 + ROUNDED)).all(axis=1) & (_parts(found, most) < _parts(times, most))
        best[better], times[better] = level[better], found[better]
    return best


def _asleep(held: Slots, tokens: Floats) -> NDArray[np.bool_]:
    """Return which slots of one layer sleep where one replica of each expert is awake, as many on each rank as can be.

    An optimal semi-matching (Harvey, Ladner, Lovasz and Tamir, 2003): the k-th replica that is awake on a rank costs
    2 k - 1, so that the sum is that of squares; where that is least, so is the most that a rank has. Of what costs as
    much, those on ranks with fewer tokens are taken.
    """
    number = np.bincount(held.ravel(), minlength=len(tokens))
    asleep = number[held] > 1
    rank, slot = np.nonzero(asleep)
    several, load = np.flatnonzero(number > 1), np.zeros(len(held))
    for experts in held.T:  # in the order of the slots: sums of floats depend on it
        load += (tokens / number)[experts]
    nth = np.cumsum(asleep, axis=1)[rank, slot] + (~asleep).sum(axis=1)[rank]
    each = (2 * nth - 1) * (len(rank) * FINE) + np.rint(FINE * load / max(load.max(), 1e-300)).astype(np.int64)[rank]
    is_on = np.zeros((len(held), len(tokens)), np.bool_)
    is_on[np.arange(len(held))[:, None], held] = True
    cost = np.zeros((len(rank), len(rank)), np.int64)  # of experts, and of what sleeps in the other slots
    cost[: len(several)] = np.where(is_on[rank][:, several].T, each, NEVER)
    for column, row in enumerate(assign(cost).tolist()):
        if row < len(several):
            g = rank[column]
            asleep[g, np.argmax(held[g] == several[row])] = False
    return np.asarray(asleep)


def _lowered(in_time: InTime, held: Slots, level: Levels, most: Floats) -> Floats:
    """Put replicas to sleep in ``level``, in place; return what the busiest ranks take [layers, batches]."""
    there = held.copy()  # which stays as it is, but native code may write to it
    return in_time.nest(there, level, most, np.arange(len(held)), (ALONE, 0, True))


def _parts(times: Floats, most: Floats) -> Floats:
    """Return what batches take together [layers], each in parts of the most that it may."""
    return np.asarray((times / np.maximum(most, 1e-300)).sum(axis=1))
