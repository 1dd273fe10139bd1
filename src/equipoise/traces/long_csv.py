"""Tables with a line for each count as traces: steps are made from their lines when they are read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from equipoise.load.long_tables import LongRows
from equipoise.traces.trace import Source, Steps

__all__ = ["long_source"]

AT_ONCE = 1 << 21  # loads of one piece


def long_source(rows: LongRows) -> Source:
    """Return the steps that the lines of a table count, in ascending order; steps that no line names are none."""
    order = np.argsort(rows.step, kind="stable")
    step, layer, expert = (each[order] for each in (rows.step, rows.layer, rows.expert))
    tokens = rows.tokens[order]
    steps, layers, experts = rows.shape
    first = np.searchsorted(step, np.arange(steps + 1))
    number = max(1, AT_ONCE // (layers * experts))

    def pieces() -> Iterator[Steps]:
        """Yield some steps at a time."""
        for begin in range(0, steps, number):
            end = min(begin + number, steps)
            lines = slice(first[begin], first[end])
            counts = np.zeros((end - begin, layers, experts))
            np.add.at(counts, (step[lines] - begin, layer[lines], expert[lines]), tokens[lines])
            yield Steps(counts)

    return Source(rows.shape, pieces)
