"""Slots that nobody is in get the experts whose replicas have most to carry: an engine leaves no slot empty."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from equipoise.replan.levelling import EMPTY
from equipoise.replan.remainder import Remainder

__all__ = ["filled"]


def filled(left: Remainder, node: NDArray[np.int32]) -> Remainder:
    """Return what is left of a placement with no slot ``EMPTY``.

    The lightest rank with an empty slot takes the expert of its node whose replicas carry most and that it does not
    hold, ties to the lowest; one that it holds only where it holds them all. ``node`` is int32 [ranks].
    """
    layers = np.flatnonzero((left.held == EMPTY).any(axis=(1, 2)))
    if not len(layers):
        return left
    held, transfers = left.held.copy(), left.transfers.copy()
    for layer in layers:
        transfers[layer] += _fill(held[layer], left.was[layer], left.weight[layer], node, left.home[layer])
    return replace(left, held=held, transfers=transfers)


def _fill(
    held: NDArray[np.int32],
    was: NDArray[np.bool_],
    weight: NDArray[np.int64],
    node: NDArray[np.int32],
    home: NDArray[np.int32],
) -> int:
    """Fill the empty slots of one layer in place; return the transfers that takes."""
    rank, slot = np.nonzero(held >= 0)
    on = np.zeros(was.shape, dtype=np.int64)
    np.add.at(on, (rank, held[rank, slot]), 1)
    replicas = on.sum(axis=0)
    transfers = 0
    vacant = [np.flatnonzero(slots == EMPTY).tolist() for slots in held]
    while any(vacant):
        load = on @ (weight // replicas)
        g = min((g for g in range(len(held)) if vacant[g]), key=lambda g: int(load[g]))
        allowed = home == node[g]
        free = allowed & (on[g] == 0)
        e = int(np.argmax(np.where(free if free.any() else allowed, weight // replicas, -1)))
        held[g, vacant[g].pop(0)] = e
        on[g, e] += 1
        replicas[e] += 1
        transfers += not was[g, e]
    return transfers
