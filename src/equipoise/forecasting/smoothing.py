"""The local level model, a random walk seen through noise: how much the newest window counts, and how noisy one is.

Differences of such a series are a moving average of order one. Their first autocorrelation r says how large the steps
of the walk are beside the noise, and with that the weight of the newest window in the best exponentially weighted
moving average (Muth 1960; Harvey 1989). Less the lag-one autocovariance is the variance of the noise itself.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENOUGH", "ERRORS", "FLOOR", "LEAST_SPANNED", "MOST_WINDOWS", "RIDGE", "WHOLE", "smooth"]

MOST_WINDOWS = 32  # that one forecast rests on
ERRORS = 64  # of past forecasts that are kept
WHOLE = 2**20  # parts that sums over layers are counted in
ENOUGH = 4  # windows for the autocorrelation to say anything
LEAST_SPANNED = 6  # windows for a projection
FLOOR = 0.001  # of the mean: no load is expected to be less of its own, none less of all loads when standardised
RIDGE = 16.0

MOST_SMOOTHED, UNKNOWN = 0.03, 0.5  # the least weight of the newest window, and what it is where nothing is known
LEAST_R, MOST_R = -0.4999, -0.001
LEAST_NOISE = 0.05  # of the mean square of differences


def smooth(sums: NDArray[np.int64], number: NDArray[np.int64], experts: int) -> tuple[float, float]:
    """Return the weight of the newest window, and the variance of one standardised load of one window.

    ``sums`` [layers, 4] and ``number`` [layers] are of one time, as ``look`` returns them. All layers are pooled.
    """
    cross, square, noise_cross, noise_square = (_total(column) for column in sums.T)
    alpha = UNKNOWN
    if number.max() >= ENOUGH and square > 0:
        r = min(max(cross / square, LEAST_R), MOST_R)
        q = -1 / r - 2
        alpha = max((math.sqrt(q * q + 4 * q) - q) / 2, MOST_SMOOTHED)
    steps, pairs = int(np.maximum(number - 1, 0).sum()), int(np.maximum(number - 2, 0).sum())
    noise = LEAST_NOISE * noise_square / (WHOLE * max(steps, 1))
    if pairs:
        noise = max(-noise_cross / (WHOLE * pairs), noise)
    return alpha, noise / experts


def _total(column: NDArray[np.int64]) -> int:
    """Return the exact sum of whole numbers, which may be more than int64 holds."""
    return (int((column >> 32).sum()) << 32) + int((column & 0xFFFFFFFF).sum())
