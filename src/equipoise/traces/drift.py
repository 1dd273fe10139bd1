"""How a load drifts: how alike windows are, the farther apart they lie, and how long one stays representative."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count
from equipoise.traces.trace import Trace
from equipoise.traces.windows import blocks_of

__all__ = ["Drift", "drift_of"]

Floats = NDArray[np.float64]
LAGS = (1, 2, 4, 8, 16, 32, 64)
TOLERATED = 0.1  # of the tokens
MOST_COMPARED = 2048  # windows, spread over the trace; each with those that lie before it


@dataclass(frozen=True, eq=False)
class Drift:
    """How the windows of a trace differ; all numbers are means over layers, and over pairs of windows with tokens.

    Attributes
    ----------
    window : int
        Steps of a window.
    num_windows : int
        Whole ones; ``num_idle`` of them have no token.
    load : float64 array, shape (num_layers, num_logical_experts)
        Tokens over all steps, those that fill no window among them.
    skew : float64 array, shape (num_windows,)
        Hottest expert / mean expert; 1 for a window without tokens.
    lags : tuple of int
        Windows that lie between those compared.
    correlation : float64 array, shape (len(lags),)
        Of the loads of the experts of a layer; NaN where no two windows lie so far apart.
    variation : float64 array, shape (len(lags),)
        Total variation: the part of a layer's tokens that another distribution would send elsewhere, 0 to 1.
    noise : float64 array, shape (len(lags),)
        What total variation would be if nothing drifted, from samples of as many tokens, each independent.
    """

    window: int
    num_windows: int
    num_idle: int
    load: Floats
    skew: Floats
    lags: tuple[int, ...]
    correlation: Floats
    variation: Floats
    noise: Floats

    @property
    def representative(self) -> int:
        """Windows for which one stays representative: up to so far, a tenth of the tokens at most goes elsewhere.

        Beyond what sampling explains; 0 if the next window is already another. At most the largest of ``lags``.
        """
        found = 0
        for lag, here, noise in zip(self.lags, self.variation, self.noise, strict=True):
            if not here - noise <= TOLERATED:  # NaN ends it too
                break
            found = lag
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, without the loads."""

        def plain(values: Floats) -> list[float | None]:
            """Return numbers as JSON has them."""
            return [None if np.isnan(value) else float(value) for value in values]

        return {
            "window": self.window,
            "num_windows": self.num_windows,
            "num_idle": self.num_idle,
            "lags": list(self.lags),
            "correlation": plain(self.correlation),
            "total_variation": plain(self.variation),
            "sampling_noise": plain(self.noise),
            "representative_windows": self.representative,
            "skew": plain(self.skew),
        }


def drift_of(trace: Trace, window: int = 1) -> Drift:
    """Return how the windows of ``window`` steps differ, going through the trace once.

    Raises
    ------
    InvalidInputError
        If ``window`` is no whole number of at least 1, or a number of the trace is negative or not finite.

    Examples
    --------
    >>> found = drift_of(Trace([[[6, 2]], [[6, 2]], [[2, 6]]]))
    >>> found.correlation[0], found.variation[0]
    (np.float64(0.0), np.float64(0.25))
    """
    as_instance(trace, Trace, "trace", "a Trace")
    window = count(window, "window")
    before: deque[Floats] = deque(maxlen=max(LAGS))
    stride = max(1, trace.num_steps // window // MOST_COMPARED)
    sums, pairs = np.zeros((3, len(LAGS))), np.zeros(len(LAGS))
    skew: list[float] = []
    load, idle = np.zeros((trace.num_layers, trace.num_logical_experts)), 0
    for block in blocks_of(trace, window, with_steps=False, keep_rest=True):
        for each in block.loads:
            load += each
        for each in block.loads[: block.whole]:
            mean = each.mean(axis=1)
            idle += not mean.any()
            skew.append(float(np.divide(each.max(axis=1), mean, out=np.ones_like(mean), where=mean > 0).mean()))
            for i, lag in enumerate(LAGS if len(skew) % stride == 0 else ()):
                found = _compare(before[-lag], each) if lag <= len(before) else None
                if found is not None:
                    sums[:, i] += found
                    pairs[i] += 1
            before.append(each)
    means = np.divide(sums, pairs, out=np.full_like(sums, np.nan), where=pairs > 0)
    return Drift(window, len(skew), idle, load, np.array(skew), LAGS, *means)


def _compare(a: Floats, b: Floats) -> tuple[float, float, float] | None:
    """Return correlation, total variation and what sampling explains of it, over layers that have tokens in both."""
    tokens_a, tokens_b = a.sum(axis=1, keepdims=True), b.sum(axis=1, keepdims=True)
    both = (tokens_a > 0).ravel() & (tokens_b > 0).ravel()
    if not both.any():
        return None
    tokens_a, tokens_b = tokens_a[both], tokens_b[both]
    a, b = a[both] / tokens_a, b[both] / tokens_b
    from_mean_a, from_mean_b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    product = (from_mean_a * from_mean_b).sum(axis=1)
    size = np.sqrt((from_mean_a**2).sum(axis=1) * (from_mean_b**2).sum(axis=1))
    correlation = np.divide(product, size, out=np.ones_like(size), where=size > 0)
    variation = np.abs(a - b).sum(axis=1) / 2
    # The difference of two samples of p has variance p (1/m + 1/n), and the mean size of a normal number is sqrt(2/pi).
    rate = (a + b) / 2
    each = (1 / tokens_a + 1 / tokens_b).ravel()
    noise = np.sqrt(rate * (2 / np.pi)).sum(axis=1) * np.sqrt(each) / 2
    return float(correlation.mean()), float(variation.mean()), float(np.minimum(noise, variation).mean())
