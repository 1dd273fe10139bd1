"""Forecasts, native: inner loops run over what lies side by side, so that no sum changes its order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.forecasting.smoothing import FLOOR, LEAST_SPANNED, MOST_WINDOWS, RIDGE, WHOLE
from equipoise.kernels.native import allocating, frozen, internal, native
from equipoise.threads import blocks, for_each

__all__ = ["look", "project", "scale"]

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]


def scale(windows: Floats, threads: int | None = None) -> tuple[Floats, Floats]:
    """Scale each layer of each window to a mean of 1; see the folder's contract."""
    windows = frozen(windows, np.float64)
    share, tokens = np.empty(windows.shape), np.empty(windows.shape[:2])

    def work(part: slice) -> None:
        """Scale some windows."""
        _scale(windows[part], share[part], tokens[part])

    for_each(work, blocks(len(windows), threads), threads)
    return share, tokens


def look(share: Floats, tokens: Floats, times: Int64s, threads: int | None = None) -> tuple[Int64s, Int64s]:
    """Return what smoothing pools over layers, and the number of windows; see the folder's contract."""
    share, tokens, times = frozen(share, np.float64), frozen(tokens, np.float64), frozen(times, np.int64)
    layers = share.shape[1]
    sums, number = np.zeros((len(times), layers, 4), np.int64), np.zeros((len(times), layers), np.int64)

    def work(part: slice) -> None:
        """Look at some layers."""
        for layer in range(part.start, part.stop):
            _look(share, tokens, times, layer, sums, number)

    for_each(work, blocks(layers, threads), threads)
    return sums, number


def project(
    share: Floats, tokens: Floats, times: Int64s, alpha: Floats, noise: Floats, threads: int | None = None
) -> Floats:
    """Return the forecast at each time; see the folder's contract."""
    share, tokens, times = frozen(share, np.float64), frozen(tokens, np.float64), frozen(times, np.int64)
    alpha, noise = frozen(alpha, np.float64), frozen(noise, np.float64)
    ahead = np.zeros((len(times), *share.shape[1:]))

    def work(part: slice) -> None:
        """Project some layers."""
        for layer in range(part.start, part.stop):
            _project(share, tokens, times, layer, alpha, noise, ahead)

    for_each(work, blocks(share.shape[1], threads), threads)
    return ahead


@native
def _scale(windows, share, tokens):
    experts = windows.shape[2]
    for w in range(len(windows)):
        for layer in range(windows.shape[1]):
            total = 0.0
            for e in range(experts):
                total += windows[w, layer, e]
            tokens[w, layer] = total
            for e in range(experts):
                share[w, layer, e] = windows[w, layer, e] / total * experts if total > 0 else 0.0


@allocating
def _seen(tokens, time, layer):
    """Return which windows a forecast at ``time`` rests on for a layer, oldest first."""
    first = max(time - MOST_WINDOWS + 1, 0)
    seen, n = np.empty(time + 1 - first, np.int64), 0
    for w in range(first, time + 1):
        if tokens[w, layer] > 0:
            seen[n] = w
            n += 1
    return seen[:n]


@native
def _look(share, tokens, times, layer, sums, number):
    """Fill ``sums`` and ``number`` of one layer."""
    experts = share.shape[2]
    square, cross = np.zeros(len(share), np.int64), np.zeros(len(share), np.int64)
    done = -1  # the last window whose differences are in ``square`` and ``cross``, by number of the window
    mean, scatter = np.empty(experts), np.empty(experts)
    for row in range(len(times)):
        seen = _seen(tokens, times[row], layer)
        n = len(seen)
        number[row, layer] = n
        for k in range(n):
            now = seen[k]
            if now > done and k > 0:
                last, before = seen[k - 1], seen[max(k - 2, 0)]
                step, turn = 0.0, 0.0
                for e in range(experts):
                    d = share[now, layer, e] - share[last, layer, e]
                    step += d * d
                    turn += d * (share[last, layer, e] - share[before, layer, e])
                square[now], cross[now] = np.int64(np.rint(step * WHOLE)), np.int64(np.rint(turn * WHOLE))
                done = now
            sums[row, layer, 1] += square[now] if k > 0 else 0
            sums[row, layer, 0] += cross[now] if k > 1 else 0
        if n < 2:
            continue
        away, by_expert = np.empty((n, experts)), np.empty((experts, n))
        _standardise(share, seen, layer, mean, scatter, away, by_expert)
        step_of, turn_of, d = np.zeros(n - 1), np.zeros(n - 1), np.empty(n - 1)
        for e in range(experts):
            for k in range(n - 1):
                d[k] = by_expert[e, k + 1] - by_expert[e, k]
            for k in range(n - 1):
                step_of[k] += d[k] * d[k]
            for k in range(n - 2):
                turn_of[k] += d[k + 1] * d[k]
        for k in range(n - 1):
            sums[row, layer, 3] += np.int64(np.rint(step_of[k] * WHOLE))
            sums[row, layer, 2] += np.int64(np.rint(turn_of[k] * WHOLE))


@internal
def _standardise(share, seen, layer, mean, scatter, away, by_expert):
    """Set the mean, the scatter sqrt(mean + .001), and how many scatters each window is ``away``, both ways round."""
    n, experts = away.shape
    mean[:] = 0.0
    for k in range(n):
        w = seen[k]
        for e in range(experts):
            mean[e] += share[w, layer, e]
    for e in range(experts):
        mean[e] /= n
        scatter[e] = np.sqrt(mean[e] + FLOOR)
    for k in range(n):
        w = seen[k]
        for e in range(experts):
            away[k, e] = (share[w, layer, e] - mean[e]) / scatter[e]
    for e in range(experts):
        for k in range(n):
            by_expert[e, k] = away[k, e]


@native
def _project(share, tokens, times, layer, alpha, noise, ahead):
    """Fill ``ahead`` of one layer."""
    experts = share.shape[2]
    mean, scatter = np.empty(experts), np.empty(experts)
    for row in range(len(times)):
        seen = _seen(tokens, times[row], layer)
        n = len(seen)
        if n == 0:
            continue
        weight, total, each = np.empty(n), 0.0, alpha[row]
        for k in range(n - 1, -1, -1):
            weight[k] = each
            total += each
            each *= 1.0 - alpha[row]
        for k in range(n):
            weight[k] /= total
        found = ahead[row, layer]
        away, by_expert = np.empty((n, experts)), np.empty((experts, n))
        _standardise(share, seen, layer, mean, scatter, away, by_expert)
        if n >= LEAST_SPANNED and noise[row] > 0:
            ridge = RIDGE * n * noise[row] * alpha[row] / (2.0 - alpha[row])
            weight = _ridge_regression(by_expert, weight, ridge)
            for k in range(n):
                for e in range(experts):
                    found[e] += weight[k] * away[k, e]
            for e in range(experts):
                found[e] = mean[e] + scatter[e] * found[e]
        else:
            for k in range(n):
                w = seen[k]
                for e in range(experts):
                    found[e] += weight[k] * share[w, layer, e]
        total = 0.0
        for e in range(experts):
            found[e] = max(found[e], FLOOR * mean[e])
            total += found[e]
        for e in range(experts):
            found[e] = found[e] / total * experts


@allocating
def _ridge_regression(by_expert, weight, ridge):
    """Return y with (D D' + ridge I) y = D D' weight, where D' is ``by_expert`` [experts, windows]; by Cholesky."""
    experts, n = by_expert.shape
    gram = np.zeros((n, n))
    for e in range(experts):
        for i in range(n):
            each = by_expert[e, i]
            for j in range(n):
                gram[i, j] += each * by_expert[e, j]
    y, column = np.zeros(n), np.empty(n)
    for j in range(n):
        for i in range(n):
            y[i] += gram[j, i] * weight[j]
    for i in range(n):
        gram[i, i] += ridge
    for k in range(n):
        gram[k, k] = np.sqrt(max(gram[k, k], ridge))  # no eigenvalue is less; rounding may say so
        for i in range(k + 1, n):
            gram[i, k] /= gram[k, k]
            column[i] = gram[i, k]
        for i in range(k + 1, n):
            each = column[i]
            for j in range(k + 1, i + 1):
                gram[i, j] -= each * column[j]
    for i in range(n):
        for j in range(i):
            y[i] -= gram[i, j] * y[j]
        y[i] /= gram[i, i]
    for i in range(n - 1, -1, -1):
        for j in range(i + 1, n):
            y[i] -= gram[j, i] * y[j]
        y[i] /= gram[i, i]
    return y
