"""One layer while it is planned for several batch sizes: slots, levels, and what they cost in each batch.

Each slot has a level: the first batch, by number, in which its replica is active; it is so in every larger one. So the
active set of a smaller batch lies inside that of a larger whatever is done. Costs of a batch are in parts of what its
busiest rank may take, ``TOP``, so that all batches compare.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import allocating, inlined
from equipoise.timing.costs import TOP, cost

__all__ = ["Costs", "LIMIT", "Nest", "new_nest", "over", "put_in_place", "read_nest", "take_out", "toll"]

ROUNDING = 2.0**7
LIMIT = np.float64(TOP + ROUNDING)
"""What a rank may come to at first: costs are rounded, so a plan that is asked to be no slower than itself may."""


class Nest(NamedTuple):
    """Slots, levels and costs of one layer.

    held int32 and level int64 [ranks, slots], the number of batches where a slot is active in none; value float64
    [ranks, slots, batches], what a slot costs, 0 where it sleeps; load float64 [ranks, batches]; count int64 [experts,
    batches], active replicas; each float64 [experts, batches, 3], what each of them costs, would cost with one more,
    and with one less, which is the last; first int64 [experts] and after int64 [ranks * slots], the slots of each
    expert as a list that ends with -1; limit float64 [batches], what a rank may come to; above float64 [ranks], the
    sum of squares of what is above; tabu int64 [experts, ranks], the last step in which no replica of an expert may
    come to a rank. All costs are whole numbers.
    """

    held: Any
    level: Any
    value: Any
    load: Any
    count: Any
    each: Any
    first: Any
    after: Any
    limit: Any
    above: Any
    tabu: Any


class Costs(NamedTuple):
    """What costs are made of: curve, scale float64 [batches], tokens float64 [batches, experts]."""

    curve: Any
    scale: Any
    tokens: Any


@allocating
def new_nest(held, level, batches, experts):
    """Return room for layers of one shape, the first of which has ``held`` and ``level``."""
    num_ranks, slots = held.shape
    return Nest(
        held,
        level,
        np.empty((num_ranks, slots, batches)),
        np.empty((num_ranks, batches)),
        np.empty((experts, batches), np.int64),
        np.empty((experts, batches, 3)),
        np.empty(experts, np.int64),
        np.empty(num_ranks * slots, np.int64),
        np.empty(batches),
        np.empty(num_ranks),
        np.empty((experts, num_ranks), np.int64),
    )


@allocating
def read_nest(nest, costs):
    """Set all that follows from slots and levels."""
    slots = nest.held.shape[1]
    nest.first[:] = -1
    nest.load[:] = 0
    for at in range(len(nest.after)):
        e = nest.held[at // slots, at % slots]
        nest.after[at] = nest.first[e]
        nest.first[e] = at
    for e in range(len(nest.first)):
        _count(nest, costs, e)
        _lift(nest, e, 1.0)


@allocating
def take_out(nest, e):
    """Take what replicas of ``e`` cost from their ranks, before their slots or levels change."""
    _lift(nest, e, -1.0)


@allocating
def put_in_place(nest, costs, e):
    """Find the replicas of ``e`` again, count them, and add what they cost."""
    slots = nest.held.shape[1]
    nest.first[e] = -1
    for g in range(nest.held.shape[0]):
        for s in range(slots):
            if nest.held[g, s] == e:
                nest.after[g * slots + s] = nest.first[e]
                nest.first[e] = g * slots + s
    _count(nest, costs, e)
    _lift(nest, e, 1.0)


@inlined
def over(nest):
    """Set ``above``, and return its sum: by how much all ranks are above the limits in all batches."""
    total = 0.0
    for g in range(nest.load.shape[0]):
        nest.above[g] = 0.0
        for c in range(nest.load.shape[1]):
            nest.above[g] += toll(nest.load[g, c] - nest.limit[c])
        total += nest.above[g]
    return total


@inlined
def toll(above):
    """Return the square of what is above a limit, 0 below it."""
    above = max(above, 0.0)
    return above * above


@allocating
def _count(nest, costs, e):
    """Set how many replicas of ``e`` are active in each batch, and what they cost; one less than one is as many."""
    slots, batches = nest.held.shape[1], nest.load.shape[1]
    for c in range(batches):
        nest.count[e, c] = 0
    at = nest.first[e]
    while at >= 0:
        for c in range(nest.level[at // slots, at % slots], batches):
            nest.count[e, c] += 1
        at = nest.after[at]
    for c in range(batches):
        for more in range(-1, 2):
            count = max(nest.count[e, c] + more, 1)
            nest.each[e, c, more] = cost(costs.curve, costs.scale[c], costs.tokens[c, e], count)
    at = nest.first[e]
    while at >= 0:
        g, s = at // slots, at % slots
        for c in range(batches):
            nest.value[g, s, c] = nest.each[e, c, 0] if nest.level[g, s] <= c else 0.0
        at = nest.after[at]


@allocating
def _lift(nest, e, sign):
    """Add what replicas of ``e`` cost to their ranks, or take it away."""
    slots = nest.held.shape[1]
    at = nest.first[e]
    while at >= 0:
        for c in range(nest.load.shape[1]):
            nest.load[at // slots, c] += sign * nest.value[at // slots, at % slots, c]
        at = nest.after[at]
