"""The threshold bound, native; see the folder's page for the proof."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import native
from equipoise.threads import for_each

__all__ = ["bound"]

THETAS, HALVINGS = 24, 9
UNIT, SLOT_PRICES = 4, np.array([4, 5, 6, 8, 12])  # prices in quarters
NEVER, MANY = np.int64(2**62), 2.0**32
MARGIN = 1e-9  # relative; sizes this close to a threshold count as whatever weakens the bound


def bound(
    load: NDArray[np.float64],
    low: NDArray[np.float64],
    achieved: NDArray[np.float64],
    num_ranks: int,
    slots_per_rank: int,
) -> NDArray[np.float64]:
    """Raise ``low`` as far as the argument carries; see the folder's contract."""
    raised: NDArray[np.float64] = low.copy()
    if slots_per_rank > 1:
        for_each(
            lambda layer: _raise(load[layer], achieved[layer], num_ranks, slots_per_rank, raised[layer : layer + 1]),
            range(len(low)),
        )
    return raised


@native
def _raise(load, achieved, num_ranks, slots, raised):  # type: ignore[no-untyped-def]
    if load.max() <= 0.0:
        return
    low, high = raised[0], 1.25 * raised[0]
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if middle < achieved and _impossible(load, num_ranks, slots, middle):
            low = middle
        else:
            high = middle
    raised[0] = low


@native
def _impossible(load, num_ranks, slots, busiest):  # type: ignore[no-untyped-def]
    """Whether some theta and slot price refute that no rank exceeds ``busiest``."""
    experts = len(load)
    fit, level, light = np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(experts, np.int64)
    _count_slots(load, busiest, fit)
    for step in range(THETAS):
        theta = busiest * (step + 1) / (2.0 * THETAS)
        _count_slots(load, busiest - theta, level)
        _count_slots(load, theta, light)
        if level.sum() <= fit.sum():  # no replica need be large
            continue
        for price in SLOT_PRICES:
            total = np.int64(0)  # in whole numbers, whose sums become vector instructions
            for e in range(experts):
                large = ((slots - 1) * UNIT + price) * fit[e] if level[e] > fit[e] else NEVER
                total += min(min(large, price * level[e]), (price - UNIT) * light[e])
            if total > price * num_ranks * slots:
                return True
    return False


@native
def _count_slots(load, largest, count):  # type: ignore[no-untyped-def]
    """Set how many slots each expert needs, at the least, for no replica to exceed ``largest``."""
    share = (1.0 - MARGIN) / largest
    for e in range(len(load)):
        count[e] = np.int64(min(max(1.0, np.ceil(load[e] * share)), MANY))
