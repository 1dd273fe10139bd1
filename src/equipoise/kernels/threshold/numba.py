"""The threshold bound, native; see the folder's page for the proof."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import native
from equipoise.threads import for_each

__all__ = ["bound"]

THETAS, HALVINGS = 24, 9
SLOT_PRICES = np.array([1.0, 1.25, 1.5, 2.0, 3.0])
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
    fit, level, light = np.empty(experts), np.empty(experts), np.empty(experts)
    for step in range(THETAS):
        theta = busiest * (step + 1) / (2.0 * THETAS)
        any_large = False
        for e in range(experts):
            fit[e] = max(1.0, np.ceil(load[e] / busiest * (1.0 - MARGIN)))
            level[e] = max(1.0, np.ceil(load[e] / (busiest - theta) * (1.0 - MARGIN)))
            light[e] = max(1.0, np.ceil(load[e] / theta * (1.0 - MARGIN)))
            any_large |= level[e] > fit[e]
        if not any_large:
            continue
        for price in SLOT_PRICES:
            total = 0.0
            for e in range(experts):
                large = (slots - 1.0 + price) * fit[e] if level[e] > fit[e] else np.inf
                total += min(min(large, price * level[e]), (price - 1.0) * light[e])
            if total > price * num_ranks * slots * (1.0 + MARGIN):
                return True
    return False
