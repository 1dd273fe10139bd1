"""Experts of each layer by descending mean of tokens, and what an only replica of each takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import allocating, native
from equipoise.latency.curve import Curve, slot_moments

__all__ = ["Ordered", "order_rows", "row_of"]

BITS = 17  # of an expert's number


class Ordered(NamedTuple):
    """Experts by descending mean of tokens, of all rows or of one.

    expert int64 [rows, experts]; tokens float64 [rows, experts]; single, spread, full float64 [rows, experts], of an
    only replica the expected time, its variance and what it is where a token comes; rest float64 [rows, experts + 1],
    the sum of ``single`` from each on.
    """

    expert: Any
    tokens: Any
    single: Any
    spread: Any
    full: Any
    rest: Any


def order_rows(curve: Curve, tokens: NDArray[np.float64]) -> Ordered:
    """Return the experts with means of ``tokens`` float64 [rows, experts] in order, ties to the lowest number.

    Means are compared in steps of 3e-14 of the largest, so that one integer has mean and expert.
    """
    below = 1.0 - tokens / np.maximum(tokens.max(axis=1, keepdims=True), 1e-300)
    keys = (np.rint(below * 2.0**45).astype(np.int64) << BITS) | np.arange(tokens.shape[1])
    keys.sort(axis=1)
    keys &= (1 << BITS) - 1
    single, spread, full = np.empty((3, *tokens.shape))
    rest = np.empty((len(tokens), tokens.shape[1] + 1))
    ordered = Ordered(keys, np.take_along_axis(tokens, keys, axis=1), single, spread, full, rest)
    _describe(curve, ordered)
    return ordered


@allocating
def row_of(ordered, row):
    """Return one row of all."""
    expert, tokens, single, spread, full, rest = ordered
    return Ordered(expert[row], tokens[row], single[row], spread[row], full[row], rest[row])


@native
def _describe(curve, ordered):
    """Set what follows from ``tokens``."""
    rows, experts = ordered.tokens.shape
    for row in range(rows):
        ordered.rest[row, experts] = 0.0
        for i in range(experts - 1, -1, -1):
            time, spread, chance = slot_moments(curve, ordered.tokens[row, i])
            ordered.single[row, i], ordered.spread[row, i] = time, spread
            ordered.full[row, i] = time / chance if chance > 0.0 else 0.0
            ordered.rest[row, i] = ordered.rest[row, i + 1] + time
