"""What a placement would be in the next window: on the forecast with each of its past errors, weighted as they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.forecasting import Forecast
from equipoise.kernels.native import frozen, native
from equipoise.threads import blocks, for_each

__all__ = ["expected_balancedness", "expected_busiest", "scenario_busiest"]

Floats = NDArray[np.float64]


def scenario_busiest(forecast: Forecast, held: NDArray[np.int32], threads: int | None = None) -> Floats:
    """Return what the busiest rank would carry with each error, over the mean: float64 [1 + errors, layers].

    ``held`` int32 [layers, ranks, slots]; a slot below 0 is empty. The first row is the forecast without an error.
    """
    share, off, held = frozen(forecast.share, float), frozen(forecast.off, float), frozen(held, np.int32)
    busiest = np.empty((1 + len(off), len(held)))

    def work(part: slice) -> None:
        """Add up some layers."""
        for layer in range(part.start, part.stop):
            _busiest(share, off, held, layer, busiest)

    for_each(work, blocks(len(held), threads), threads)
    busiest *= held.shape[1] / share.shape[1]
    return busiest


def expected_busiest(forecast: Forecast, held: NDArray[np.int32], threads: int | None = None) -> Floats:
    """Return what the busiest rank is expected to carry in the next window, over the mean: float64 [layers].

    In a layer without errors that is what it carries on the forecast.
    """
    busiest = scenario_busiest(forecast, held, threads)
    return _weighed(busiest[1:], busiest[0], forecast)


def expected_balancedness(forecast: Forecast, held: NDArray[np.int32], threads: int | None = None) -> Floats:
    """Return the balancedness that is expected of the next window: float64 [layers], as ``expected_busiest``."""
    busiest = scenario_busiest(forecast, held, threads)
    balanced = np.divide(1.0, busiest, out=np.ones_like(busiest), where=busiest > 0)
    return _weighed(balanced[1:], balanced[0], forecast)


def _weighed(of_errors: Floats, of_none: Floats, forecast: Forecast) -> Floats:
    expected = np.where(forecast.weight.any(axis=0), 0.0, of_none)
    for row, weight in zip(of_errors, forecast.weight, strict=True):  # row after row: numpy may add in another order
        expected += weight * row
    return expected


@native
def _busiest(share, off, held, layer, busiest):
    """Fill ``busiest`` [1 + errors, layers] of one layer."""
    _, ranks, slots = held.shape
    experts = share.shape[1]
    replicas = np.zeros(experts)
    for g in range(ranks):
        for s in range(slots):
            if held[layer, g, s] >= 0:
                replicas[held[layer, g, s]] += 1.0
    each = np.empty(experts)
    for row in range(len(busiest)):
        for e in range(experts):
            load = share[layer, e] + (off[row - 1, layer, e] if row > 0 else 0.0)
            each[e] = load / max(replicas[e], 1.0)
        most = 0.0
        for g in range(ranks):
            load = 0.0
            for s in range(slots):
                if held[layer, g, s] >= 0:
                    load += each[held[layer, g, s]]
            most = max(most, load)
        busiest[row, layer] = most
