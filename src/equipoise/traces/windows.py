"""Windows of a trace, some at a time: sums of so many steps each, and the steps themselves where they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.traces.trace import Steps, Trace

__all__ = ["Block", "blocks_of"]

Floats = NDArray[np.float64]
MOST_WINDOWS, MOST_LOADS = 256, 1 << 18
MOST_STEP_LOADS = 1 << 24


@dataclass(frozen=True, eq=False)
class Block:
    """Some windows, one after the other.

    Attributes
    ----------
    first : int
        The number of the first window.
    loads : float64 array, shape (windows, layers, experts)
    steps : tuple of Steps or None
        The steps of each window; None where they were not asked for.
    first_step : int
        The number of the first step of the first window.
    whole : int
        Windows that are whole: all, but for the steps at the end that fill none, where they were asked for.
    """

    first: int
    loads: Floats
    steps: tuple[Steps, ...] | None
    first_step: int
    whole: int


def blocks_of(trace: Trace, window: int, with_steps: bool, skip: int = 0, keep_rest: bool = False) -> Iterator[Block]:
    """Yield the windows of ``window`` steps from number ``skip`` on.

    Steps at the end that fill none are left out, or with ``keep_rest`` come last as what they are.
    """
    cells = trace.num_layers * trace.num_logical_experts
    number = max(1, min(MOST_WINDOWS, MOST_LOADS // cells))
    if with_steps:
        number = max(1, min(number, MOST_STEP_LOADS // (cells * window)))
    loads: list[Floats] = []
    steps: list[Steps] = []
    first, left = skip, skip * window
    current, held, filled = np.zeros((trace.num_layers, trace.num_logical_experts)), _Held(), 0
    for piece in trace.pieces():
        begin = min(left, len(piece.counts))
        left -= begin
        while begin < len(piece.counts):
            end = min(begin + window - filled, len(piece.counts))
            part = piece.counts[begin:end]
            # One step after the other, so that a sum does not depend on where the trace was cut into pieces.
            for step in part:
                current += step
            if with_steps:
                held.add(part, None if piece.tokens is None else piece.tokens[begin:end])
            filled, begin = filled + end - begin, end
            if filled == window:
                loads.append(current)
                if with_steps:
                    steps.append(held.steps())
                current, held, filled = np.zeros_like(current), _Held(), 0
            if len(loads) == number:
                yield Block(first, np.stack(loads), tuple(steps) if with_steps else None, first * window, len(loads))
                first, loads, steps = first + number, [], []
    whole = len(loads)
    if filled and keep_rest:
        loads.append(current)
    if loads:
        yield Block(first, np.stack(loads), tuple(steps) if with_steps else None, first * window, whole)


class _Held:
    """The steps of a window while it fills."""

    def __init__(self) -> None:
        self._counts: list[NDArray[Any]] = []
        self._tokens: list[NDArray[Any]] = []

    def add(self, counts: NDArray[Any], tokens: tuple[NDArray[Any], ...] | None) -> None:
        """Add some steps."""
        self._counts.append(counts)
        self._tokens.extend(tokens or ())

    def steps(self) -> Steps:
        """Return all of them."""
        return Steps(np.concatenate(self._counts), tuple(self._tokens) or None)
