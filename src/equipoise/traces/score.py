"""What placements are worth in single steps: tokens of each slot by the rule of an engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.rules import Batch, Maps, Rule, batch_of, deal, slot_tokens
from equipoise.errors import InvalidInputError
from equipoise.placement import Placement
from equipoise.threads import for_each
from equipoise.traces.settings import Asked, Setting
from equipoise.traces.trace import Steps
from equipoise.traces.windows import Block

__all__ = ["Realised", "realised"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
AT_ONCE = 1 << 20  # tokens, counted once for each expert, of the steps that are looked at together


@dataclass(frozen=True, eq=False)
class Realised:
    """What came of the windows of a block by a dispatch rule, as means over the steps of each that have tokens.

    Attributes
    ----------
    balancedness : float64 array, shape (windows,)
        Mean over the layers of mean / max tokens of a rank.
    active : float64 array, shape (windows,)
        Mean over the layers of the most replicas with tokens on a rank.
    microseconds : float64 array, shape (windows,)
        Sum over the layers of the time of the rank that takes longest; NaN without a latency model.
    """

    balancedness: Floats
    active: Floats
    microseconds: Floats


def realised(
    block: Block, tables: dict[Setting, Ints], rule: Rule, asked: Asked, threads: int | None
) -> dict[Setting, Realised]:
    """Return what each window came to by what was in force: ``tables`` [windows, layers, slots], by setting.

    Raises
    ------
    InvalidInputError
        If the rule asks for tokens and a count is no whole number, of which none can be made.
    """
    windows = len(block.loads)
    timed = 0.0 if asked.latency is not None else np.nan
    found = {key: Realised(np.ones(windows), np.zeros(windows), np.full(windows, timed)) for key in tables}
    kept: dict[tuple[Setting, int], Maps] = {}

    def work(window: int) -> None:
        """Score the steps of a window."""
        assert block.steps is not None
        sums = {key: np.zeros(3) for key in tables}
        number = 0
        for counts, batch in _steps(block.steps[window], block.first + window, rule, asked):
            number += len(counts)
            for key, table in tables.items():
                slots = slot_tokens(rule, _maps(kept, key, table, window, asked), counts, batch)
                sums[key] += _scored(slots, asked)
        for key, total in sums.items():
            if number:
                each = found[key]
                each.balancedness[window], each.active[window], each.microseconds[window] = total / number

    for_each(work, range(windows), threads)
    return found


def _maps(kept: dict[tuple[Setting, int], Maps], key: Setting, table: Ints, window: int, asked: Asked) -> Maps:
    """Return the maps of what was in force, made once for windows in a row that have the same."""
    first = window
    while first and np.array_equal(table[first - 1], table[window]):
        first -= 1
    maps = kept.get((key, first))
    if maps is None:
        experts = int(table[first].max()) + 1
        maps = kept[key, first] = Maps(
            Placement(table[first], asked.cluster.num_ranks, experts), asked.cluster.num_nodes
        )
    return maps


def _steps(steps: Steps, window: int, rule: Rule, asked: Asked) -> Iterator[tuple[Floats, Batch | None]]:
    """Yield the steps of a window that have tokens, some at a time: their counts, and tokens if the rule needs them."""
    seed = np.random.SeedSequence([asked.seed, 1, window])
    draw = np.random.Generator(np.random.PCG64(seed))
    counts = np.asarray(steps.counts, np.float64)
    sizes = counts.reshape(len(counts), -1).sum(axis=1)
    chosen = np.flatnonzero(sizes)
    group = np.cumsum(sizes[chosen]) // AT_ONCE
    for each in np.split(chosen, np.flatnonzero(np.diff(group)) + 1):
        if not len(each):
            continue
        part = counts[each]
        if rule.choose is None:
            yield part, None
        elif steps.tokens is not None:
            yield part, batch_of([steps.tokens[i] for i in each], asked.cluster.num_ranks, draw)
        else:
            yield part, deal(_whole(part, window), asked.cluster.num_ranks, asked.experts_per_token or 1, draw)


def _whole(counts: Floats, window: int) -> NDArray[np.int64]:
    whole = counts.astype(np.int64)
    if not np.array_equal(whole, counts):
        raise InvalidInputError(
            f"window {window} holds counts that are no whole numbers, of which no tokens can be made; use dispatch "
            "even."
        )
    return whole


def _scored(slots: Floats, asked: Asked) -> Floats:
    """Return the sum over steps of balancedness and most active replicas, means over layers, and of microseconds."""
    by_rank = slots.reshape(*slots.shape[:2], asked.cluster.num_ranks, -1)
    load = by_rank.sum(axis=3)
    largest = load.max(axis=2)
    ratio = np.divide(load.mean(axis=2), largest, out=np.ones_like(largest), where=largest > 0)
    active = (by_rank > 0).sum(axis=3).max(axis=2)
    time = np.nan if asked.latency is None else asked.latency.rank_time(by_rank).max(axis=2).sum()
    return np.array([ratio.mean(axis=1).sum(), active.mean(axis=1).sum(), time])
