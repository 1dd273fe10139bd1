"""The expected time of a slot against its mean tokens: f(x) = sum over n >= 1 of P(n) max(floor, base + per_token n).

n is Poisson with mean x. With m the most tokens at which the floor counts,

    f(x) = base P(n >= 1) + per_token x + sum over 1 <= n <= m of P(n) (floor - base - per_token n),

and for x far above m that is base + per_token x. The probabilities are summed as ratios to that of the most likely n,
which takes no more than + - * / and so has the same bits on every processor; no library's exp or gamma need.

Planning asks for f some ten thousand times a layer. So f is tabulated once for a model, at equal steps of sqrt(x), in
which it is smooth to the same scale everywhere, and interpolated by cubics that meet its slope (Hermite): off by less
than 1e-8 of f. Below a mean of ``LEAST`` tokens, and above what the table holds, it is summed each time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import inlined, internal, native

__all__ = ["Curve", "curve_of", "expected_slot_times", "moments_of", "most_tokens", "slot_moments", "slot_time"]

STEPS = 64  # of the table, to one of sqrt(x)
LEAST = 0.25
MOST_ROOT = 70.0  # the table ends at this sqrt(x)


class Curve(NamedTuple):
    """f of one model.

    floor, base, per_token float; last, the m above, int; table float64 [points, 6], times float64 [points, 2].
    The table has f, the expected square of the time, and P(n >= 1), each followed by its slope per step of the table;
    ``times`` has f alone, close together, for what is asked most.
    """

    floor: float
    base: float
    per_token: float
    last: int
    table: Any
    times: Any


@lru_cache(maxsize=64)
def curve_of(floor: float, base: float, per_token: float) -> Curve:
    """Return the curve of a model, made once and kept."""
    last = 0
    if floor > base:
        last = 2**62 if per_token <= (floor - base) * 2.0**-60 else int((floor - base) / per_token)
    root = min(4.5 + np.sqrt(21.0 + min(last, 1e6)), MOST_ROOT)  # beyond that it is a line, see _summed
    points = int(np.ceil(root * STEPS)) + 2
    curve = Curve(floor, base, per_token, last, np.empty((points, 6)), np.empty((points, 2)))
    _tabulate(curve)
    curve.table.setflags(write=False)
    curve.times.setflags(write=False)
    return curve


def expected_slot_times(curve: Curve, mean_tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return f of every entry, an array of the same shape."""
    flat = np.ascontiguousarray(mean_tokens, dtype=np.float64).reshape(-1)
    times = np.empty_like(flat)
    _look_up(curve, flat, times)
    return times.reshape(mean_tokens.shape)


@native
def _look_up(curve, mean_tokens, times):
    for i in range(len(mean_tokens)):
        times[i] = slot_time(curve, mean_tokens[i])


@native
def _tabulate(curve):
    for i in range(len(curve.table)):
        root = i / STEPS
        sums = _summed(curve, root * root)
        for column in range(6):
            curve.table[i, column] = sums[column] * (2.0 * root / STEPS if column % 2 else 1.0)
        curve.times[i, 0], curve.times[i, 1] = curve.table[i, 0], curve.table[i, 1]


@inlined
def slot_time(curve, mean_tokens):
    """Return f(mean_tokens), from the table where it can be."""
    at = np.sqrt(mean_tokens) * STEPS
    if mean_tokens < LEAST or at >= len(curve.times) - 1:
        return _summed(curve, mean_tokens)[0]
    i = int(at)
    return _between(curve.times, i, at - i, 0)


@inlined
def slot_moments(curve, mean_tokens):
    """Return f(mean_tokens), the variance of the time, and the chance that the slot gets any token."""
    at = np.sqrt(mean_tokens) * STEPS
    if mean_tokens < LEAST or at >= len(curve.table) - 1:
        sums = _summed(curve, mean_tokens)
        return sums[0], max(sums[2] - sums[0] * sums[0], 0.0), sums[4]
    i = int(at)
    t = at - i
    time = _between(curve.table, i, t, 0)
    return time, max(_between(curve.table, i, t, 2) - time * time, 0.0), _between(curve.table, i, t, 4)


@native
def moments_of(curve, mean_tokens):
    """Return what ``slot_moments`` does, to Python."""
    return slot_moments(curve, mean_tokens)


@native
def most_tokens(curve, time):
    """Return a mean of tokens that no slot exceeds that takes ``time`` at most; too much by some 1e-5 of it at most."""
    table = curve.times
    end = len(table) - 1
    if time >= table[end, 0]:
        return _most_beyond(curve, time) * (1.0 + 1e-6)
    low, high = 0, end
    while high - low > 1:
        middle = (low + high) // 2
        if table[middle, 0] <= time:
            low = middle
        else:
            high = middle
    root = (low + _step_at(table, low, time)) / STEPS
    return root * root * (1.0 + 1e-6)


@internal
def _step_at(table, i, time):
    """Return a part of the step from row ``i`` of the table to the next in which ``time`` is reached, or a bit more.

    The curve is near a line there, so two steps by its slope come to 1e-5 of the step; where not, all of it is taken.
    """
    begin, end = table[i, 0], table[i + 1, 0]
    t = min((time - begin) / (end - begin), 1.0) if end > begin else 1.0
    for _ in range(2):
        t += (time - _between(table, i, t, 0)) / (end - begin) if end > begin else 0.0
    t = min(max(t + 2e-5, 0.0), 1.0)
    return t if _between(table, i, t, 0) >= time else 1.0


@internal
def _most_beyond(curve, time):
    """Return the same where it lies beyond the table: on the line that the curve is, well above the floor."""
    if curve.per_token > 0.0:
        x = (time - curve.base) / curve.per_token
        if x > 64.0 and x - 9.0 * np.sqrt(x) > curve.last:
            return x
    root = (len(curve.times) - 1.0) / STEPS
    low = high = root * root
    while slot_time(curve, high) <= time and high < 1e15:
        low, high = high, 2.0 * high
    while high - low > 1e-7 * high:
        middle = 0.5 * (low + high)
        if slot_time(curve, middle) <= time:
            low = middle
        else:
            high = middle
    return high


@inlined
def _between(table, i, t, column):
    """Return what a column of the table says at ``i + t``, by the cubic that meets values and slopes at both ends."""
    rest = 1.0 - t
    return rest * rest * ((1.0 + 2.0 * t) * table[i, column] + t * table[i, column + 1]) + t * t * (
        (3.0 - 2.0 * t) * table[i + 1, column] - rest * table[i + 1, column + 1]
    )


@internal
def _summed(curve, x):
    """Return the six columns of the table at a mean of ``x``; a slope is what one token more adds on average."""
    floor, base, per_token, last, _, _ = curve
    if x <= 0.0:
        one = max(floor, base + per_token)
        return 0.0, one, 0.0, one * one, 0.0, 1.0
    if x > 64.0:
        root = np.sqrt(x)
        if x - 9.0 * root > last:
            line = base + per_token * x
            return line, per_token, line * line + per_token * per_token * x, 0.0, 1.0, 0.0  # beyond any table
        if x + 9.0 * root + 40.0 < last:
            return floor, 0.0, floor * floor, 0.0, 1.0, 0.0
    mode = int(x)
    none = mass = time = more = square = squares = 0.0
    # Down from the most likely n, then up: each term is the last one times a ratio.
    for way in range(2):
        n = mode if way == 0 else mode + 1
        weight = 1.0 if way == 0 else x / n
        while weight > 1e-22 * mass and n > 0:
            now, then = max(floor, base + per_token * n), max(floor, base + per_token * (n + 1))
            mass += weight
            time += weight * now
            more += weight * (then - now)
            square += weight * now * now
            squares += weight * (then * then - now * now)
            weight *= n / x if way == 0 else x / (n + 1)
            n += 2 * way - 1
        if n == 0:
            none = weight
            one = max(floor, base + per_token)
            more += none * one
            squares += none * one * one
    every = mass + none
    return time / every, more / every, square / every, squares / every, mass / every, none / every
