"""A forecast as whole numbers: expected loads, and errors in standard deviations' measure, one row each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.forecasting import Forecast

__all__ = ["MOST_EXPERTS", "rows_of", "start_load", "unit_of"]

Floats = NDArray[np.float64]

MOST_BITS = 16  # the mean rank load is 2 ** 16
MOST_EXPERTS = 2048  # beyond it the inner products of all pairs take more memory than they are worth
CAUTION = 0.67  # standard deviations: the median of what is off, if errors are normal


def unit_of(num_ranks: int) -> int:
    """Return the whole number that the mean rank load becomes: so that squares, over all rows, stay below 2**62.

    Over all ranks a row of loads sums to the ranks, in this unit, and errors to no more than twice as much.

    >>> unit_of(32) == 2**16, unit_of(2**17) == 2**11
    (True, True)
    """
    return 1 << min(MOST_BITS, 29 - num_ranks.bit_length())


def rows_of(forecast: Forecast, num_ranks: int) -> NDArray[np.int32]:
    """Return the forecast and its errors as int32 [layers, 1 + errors, experts]; see the folder's contract.

    Errors of layers that have too few are rows of zeros.
    """
    layers, experts = forecast.share.shape
    scale = unit_of(num_ranks) * (num_ranks / experts)  # loads have a mean of 1 an expert
    rows = np.zeros((layers, 1 + forecast.num_errors, experts), dtype=np.int32)
    rows[:, 0] = np.rint(scale * forecast.share)
    for number, (error, weight) in enumerate(zip(forecast.off, forecast.weight, strict=True)):
        rows[:, 1 + number] = np.rint(scale * (np.sqrt(weight)[:, None] * error))
    return rows


def start_load(forecast: Forecast) -> Floats:
    """Return what a plan starts from, [layers, experts] in tokens: more where loads are hot or volatile.

    The forecast and .67 standard deviations of its errors. Layers without errors have the forecast itself.
    """
    variance = np.zeros(forecast.expected.shape)
    for error, weight in zip(forecast.off, forecast.weight, strict=True):
        variance += weight[:, None] * (error * error)
    tokens = forecast.expected.sum(axis=1, keepdims=True) / forecast.expected.shape[1]
    more: Floats = forecast.expected + tokens * (CAUTION * np.sqrt(variance))
    return np.where(forecast.has_errors[:, None], more, forecast.expected)
