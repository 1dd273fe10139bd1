"""Forecasts in plain Python, one number after the other: the specification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from equipoise.forecasting.smoothing import FLOOR, LEAST_SPANNED, MOST_WINDOWS, RIDGE, WHOLE

__all__ = ["look", "project", "scale"]

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]
Row = list[float]


def scale(windows: Floats) -> tuple[Floats, Floats]:
    """Scale each layer of each window to a mean of 1; see the folder's contract."""
    share, tokens = np.zeros(windows.shape), np.zeros(windows.shape[:2])
    for w, layer in np.ndindex(*tokens.shape):
        row = windows[w, layer].tolist()
        tokens[w, layer] = total = added(row)
        if total > 0:
            share[w, layer] = [load / total * len(row) for load in row]
    return share, tokens


def look(share: Floats, tokens: Floats, times: Int64s) -> tuple[Int64s, Int64s]:
    """Return what smoothing pools over layers, and the number of windows; see the folder's contract."""
    sums = np.zeros((len(times), share.shape[1], 4), np.int64)
    number = np.zeros(sums.shape[:2], np.int64)
    for row, layer in np.ndindex(*number.shape):
        seen = windows_seen(share[:, layer], tokens[:, layer], int(times[row]))
        number[row, layer] = len(seen)
        if len(seen) > 1:
            away = standardised(seen)[2]
            sums[row, layer] = [*lagged(seen), *lagged(away)]
    return sums, number


def project(share: Floats, tokens: Floats, times: Int64s, alpha: Floats, noise: Floats) -> Floats:
    """Return the forecast at each time; see the folder's contract."""
    ahead = np.zeros((len(times), *share.shape[1:]))
    for row, layer in np.ndindex(*ahead.shape[:2]):
        seen = windows_seen(share[:, layer], tokens[:, layer], int(times[row]))
        if seen:
            ahead[row, layer] = next_window(seen, float(alpha[row]), float(noise[row]))
    return ahead


def next_window(seen: list[Row], alpha: float, noise: float) -> Row:
    """Return what the next window is expected to be, its mean 1."""
    n, experts = len(seen), range(len(seen[0]))
    each = [alpha]
    for _ in range(n - 1):
        each.append(each[-1] * (1.0 - alpha))
    total = added(each)
    average = [weight / total for weight in reversed(each)]
    mean, scatter, away = standardised(seen)
    if n >= LEAST_SPANNED and noise > 0:
        y = ridge_regression(away, average, RIDGE * n * noise * alpha / (2.0 - alpha))
        found = [mean[e] + scatter[e] * dot(y, [row[e] for row in away]) for e in experts]
    else:
        found = [dot(average, [row[e] for row in seen]) for e in experts]
    found = [max(found[e], FLOOR * mean[e]) for e in experts]
    total = added(found)
    return [load / total * len(found) for load in found]


def ridge_regression(away: list[Row], average: Row, ridge: float) -> Row:
    """Return y with (D D' + ridge I) y = D D' average for the rows D of ``away``; by Cholesky."""
    n = len(away)
    gram = [[dot(a, b) for b in away] for a in away]
    y = [dot(row, average) for row in zip(*gram, strict=True)]
    for i in range(n):
        gram[i][i] += ridge
    for i in range(n):
        for j in range(i + 1):
            rest = gram[i][j]
            for k in range(j):
                rest -= gram[i][k] * gram[j][k]
            gram[i][j] = math.sqrt(max(rest, ridge)) if i == j else rest / gram[j][j]
    for i in range(n):
        for j in range(i):
            y[i] -= gram[i][j] * y[j]
        y[i] /= gram[i][i]
    for i in reversed(range(n)):
        for j in range(i + 1, n):
            y[i] -= gram[j][i] * y[j]
        y[i] /= gram[i][i]
    return y


def windows_seen(share: Floats, tokens: Floats, time: int) -> list[Row]:
    """Return the windows of a layer that a forecast rests on, oldest first: those with tokens."""
    first = max(time - MOST_WINDOWS + 1, 0)
    return [share[w].tolist() for w in range(first, time + 1) if tokens[w] > 0]


def standardised(seen: list[Row]) -> tuple[Row, Row, list[Row]]:
    """Return the mean window, the scatter of each expert, and how many scatters each window is away."""
    mean = [added(column) / len(seen) for column in zip(*seen, strict=True)]
    scatter = [math.sqrt(m + FLOOR) for m in mean]
    return mean, scatter, [[(x - m) / s for x, m, s in zip(row, mean, scatter, strict=True)] for row in seen]


def lagged(rows: list[Row]) -> tuple[int, int]:
    """Return the sums of ``d_k . d_(k-1)`` and ``|d_k|^2`` over the differences d of rows, in whole parts."""
    steps = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairwise(rows)]
    cross = sum(round(dot(b, a) * WHOLE) for a, b in pairwise(steps))
    return cross, sum(round(dot(d, d) * WHOLE) for d in steps)


def added(numbers: Sequence[float]) -> float:
    """Return the sum from left to right, rounded after each number; Python's ``sum`` may round less."""
    total = 0.0
    for number in numbers:
        total += number
    return total


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the sum of products from left to right."""
    return added([x * y for x, y in zip(a, b, strict=True)])
