"""What of the past counts: tokens per step and expert, over a window that moves with the steps."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import count, finite
from equipoise.arrays import as_numpy
from equipoise.errors import InvalidInputError, shown

__all__ = ["ExponentialAverage", "SlidingSum", "Window", "load_of"]

Floats = NDArray[np.float64]


def _like(counts: Any, before: Floats | None) -> Floats:
    """Return the counts of one step as floats in the shape of those before, or say what they must be."""
    array = np.asarray(as_numpy(counts, "counts"), dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or (before is not None and array.shape != before.shape):
        shape = "(layers, experts)" if before is None else f"that of the steps before, {before.shape}"
        raise InvalidInputError(f"counts has shape {array.shape}; it must be {shape}.")
    if not (np.isfinite(array.sum()) and array.min() >= 0):
        raise InvalidInputError("counts holds a number that is negative or not finite; tokens are neither.")
    return array


class Window(Protocol):
    """Takes the counts of each step and knows the mean of those that it remembers."""

    def add(self, counts: Floats) -> None:
        """Take the counts of one step, [layers, experts]."""

    def tokens_per_step(self) -> Floats | None:
        """Return the mean of what is remembered, or None before the first step."""


def load_of(window: Window, shape: tuple[int, int]) -> Floats:
    """Return what a window remembers, [layers, experts], zeros before the first step; or say why that is no load."""
    load = window.tokens_per_step()
    if load is None:
        return np.zeros(shape)
    array = np.asarray(as_numpy(load, "what the window returns"), dtype=np.float64)
    if array.shape != shape:
        raise InvalidInputError(f"the window returns shape {array.shape}; it must be {shape}, layers and experts.")
    return array


@dataclass
class SlidingSum:
    """The last ``steps`` steps, all alike.

    Examples
    --------
    >>> window = SlidingSum(2)
    >>> for tokens in (9.0, 1.0, 3.0):
    ...     window.add(np.array([[tokens]]))
    >>> window.tokens_per_step().tolist()
    [[2.0]]
    """

    steps: int = 100
    _kept: deque[Floats] = field(default_factory=deque, init=False, repr=False)
    _sum: Floats | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.steps = count(self.steps, "steps")

    def add(self, counts: Floats) -> None:
        """Take the counts of one step; the oldest leave when there are too many."""
        counts = _like(counts, self._sum)
        self._kept.append(counts)
        self._sum = counts.copy() if self._sum is None else self._sum + counts
        if len(self._kept) > self.steps:
            self._sum -= self._kept.popleft()

    def tokens_per_step(self) -> Floats | None:
        """Return the mean over the steps that are kept."""
        return None if self._sum is None else np.maximum(self._sum, 0.0) / len(self._kept)


@dataclass
class ExponentialAverage:
    """All steps, each half as heavy as one ``half_life`` steps later.

    The mean is exact from the first step on: it is divided by the weights that have been given out.

    Examples
    --------
    >>> window = ExponentialAverage(half_life=1)
    >>> for tokens in (4.0, 1.0):
    ...     window.add(np.array([[tokens]]))
    >>> window.tokens_per_step().tolist()
    [[2.0]]
    """

    half_life: float = 50.0
    _sum: Floats | None = field(default=None, init=False, repr=False)
    _weight: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        rule = "a finite number of steps above 0"
        number = finite(self.half_life, "half_life", rule)
        if number == 0:
            raise InvalidInputError(f"half_life is {shown(self.half_life)}; it must be {rule}.")
        self.half_life = number

    def add(self, counts: Floats) -> None:
        """Take the counts of one step; what came before weighs less by one step's worth."""
        counts = _like(counts, self._sum)
        keep = 0.5 ** (1.0 / self.half_life)
        self._sum = counts.copy() if self._sum is None else self._sum * keep + counts
        self._weight = self._weight * keep + 1.0

    def tokens_per_step(self) -> Floats | None:
        """Return the weighted mean."""
        return None if self._sum is None else self._sum / self._weight
