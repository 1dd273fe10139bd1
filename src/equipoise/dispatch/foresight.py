"""What is known of the load that shares are for: what is expected, and how far off such expectations were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_load, as_numpy, as_windows
from equipoise.dispatch.best import share
from equipoise.dispatch.shares import Shares
from equipoise.errors import InvalidInputError
from equipoise.placement import Placement

__all__ = ["Foresight", "cautious_shares", "foresee"]

Floats = NDArray[np.float64]
NEWEST = 0.5  # what the newest window weighs in the moving average
MOST_ERRORS, FEWEST_ERRORS = 16, 3
STEPS = 8  # from even shares to the best ones


@dataclass(frozen=True, eq=False)
class Foresight:
    """A load that is expected, and errors of such expectations.

    Attributes
    ----------
    expected : float64 array, shape (num_layers, num_logical_experts)
    errors : float64 array, shape (num_errors, num_layers, num_logical_experts)
        What the load had more than was expected, the last times; none where nothing is known of it.
    weight : float64 array, shape (num_errors, num_layers)
        What each error counts.
    """

    expected: Floats
    errors: Floats
    weight: Floats


def foresee(load: Any) -> Foresight:
    """Return what ``load`` says of the next window.

    A forecast, or whatever has ``expected``, is taken at its word, with its ``errors`` and their ``weight`` where it
    has them. Windows [windows, layers, experts], oldest first, give their exponentially weighted moving average, half
    of it the newest, and what each of the last windows had more than that of the windows before it. One load
    [layers, experts] is expected to stay.

    Raises
    ------
    InvalidInputError
        If it is no load, or errors are not of its shape.
    """
    if hasattr(load, "expected"):
        expected = as_load(load.expected)
        errors = _finite(getattr(load, "errors", np.zeros((0, *expected.shape))), "errors", expected.shape)
        weight = _finite(getattr(load, "weight", np.ones(errors.shape[:2])), "weight", expected.shape[:1])
        if len(weight) != len(errors):
            raise InvalidInputError(f"weight is of {len(weight)} errors, and there are {len(errors)}.")
        return Foresight(expected, errors, weight)
    windows = as_windows(load)
    average, errors_of = windows[0], []
    for window in windows[1:]:
        errors_of.append(window - average)
        average = average + NEWEST * (window - average)
    errors = np.array(errors_of).reshape(-1, *average.shape)
    return Foresight(average, errors, np.ones(errors.shape[:2]))


def _finite(value: Any, name: str, shape: tuple[int, ...]) -> Floats:
    array = np.asarray(as_numpy(value, name), dtype=np.float64)
    if array.shape[1:] != shape or not np.isfinite(array).all():
        raise InvalidInputError(f"{name} has shape {array.shape}; it must hold finite numbers for (errors, *{shape}).")
    return array


def cautious_shares(placement: Placement, load: Any) -> Shares:
    """Return the best shares for what ``load`` says of the next window, as far from even as its errors allow.

    Where at least three errors are known, each layer goes that part of the way from even shares to the best ones, in
    eighths, for which its busiest rank would have carried least on average had the errors come again: nearest to even
    of equal ones. ``load`` is as ``foresee`` takes it, and errors are as in ``share``.

    >>> placement = Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    >>> steady = [[[4, 2, 0]]] * 5
    >>> cautious_shares(placement, steady).values.tolist()
    [[0.25, 1.0, 0.75, 1.0]]
    """
    known = foresee(load)
    best, even = share(placement, known.expected), Shares.even(placement)
    if len(known.errors) < FEWEST_ERRORS:
        return best
    steps = np.arange(STEPS + 1) / STEPS
    cost = np.zeros((STEPS + 1, placement.num_layers))
    for error, weight in zip(known.errors[-MOST_ERRORS:], known.weight[-MOST_ERRORS:], strict=True):
        again = np.maximum(known.expected + error, 0.0)
        plain, uneven = even.rank_load(again), best.rank_load(again)
        for row, part in enumerate(steps):
            cost[row] += weight * ((1 - part) * plain + part * uneven).max(axis=1)
    part = steps[cost.argmin(axis=0)][:, None]
    part[(known.weight[-MOST_ERRORS:].max(axis=0) <= 0), 0] = 1.0  # nothing is known against the best ones
    return Shares((1 - part) * even.values + part * best.values, placement)
