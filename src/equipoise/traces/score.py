"""What a placement is worth in a window, step by step: tokens of each slot by the rule of an engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.rules import Batch, Maps, Rule, batch_of, deal, slot_tokens
from equipoise.errors import InvalidInputError
from equipoise.placement import Placement
from equipoise.traces.settings import Asked
from equipoise.traces.windows import Block

__all__ = ["Realised", "batches_of", "realised"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Realised:
    """What came of the windows of a block by a dispatch rule, as means over the steps of each that have tokens.

    Attributes
    ----------
    balancedness : float64 array, shape (windows,)
        Mean over the layers of mean / max tokens of a rank.
    active : float64 array, shape (windows,)
        Mean over the layers of the most replicas with tokens on a rank.
    """

    balancedness: Floats
    active: Floats


def batches_of(block: Block, asked: Asked, rule: Rule) -> list[list[Batch | None]]:
    """Return for each window the tokens of each step one by one; None for a rule that splits evenly.

    Raises
    ------
    InvalidInputError
        If a count is no whole number, of which tokens cannot be made.
    """
    assert block.steps is not None
    found: list[list[Batch | None]] = []
    number = block.first_step
    for steps in block.steps:
        window: list[Batch | None] = []
        for i in range(len(steps.counts)):
            window.append(None if rule.choose is None else _batch(steps.counts[i], steps.tokens, i, number, asked))
            number += 1
        found.append(window)
    return found


def _batch(counts: Floats, tokens: tuple[NDArray[np.int64], ...] | None, i: int, number: int, asked: Asked) -> Batch:
    draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence([asked.seed, 1, number])))
    ranks = asked.cluster.num_ranks
    if tokens is not None:
        return batch_of(tokens[i], ranks, draw)
    whole = counts.astype(np.int64)
    if not np.array_equal(whole, counts):
        raise InvalidInputError(
            f"step {number} holds counts that are no whole numbers, of which no tokens can be made; use dispatch even."
        )
    return deal(whole, ranks, asked.experts_per_token or 1, draw)


def realised(block: Block, tables: Ints, batches: list[list[Batch | None]], rule: Rule, asked: Asked) -> Realised:
    """Return what each window of ``block`` came to by what was in force, ``tables`` [windows, layers, slots]."""
    assert block.steps is not None
    windows, experts, ranks = len(tables), block.loads.shape[2], asked.cluster.num_ranks
    balance, active = np.ones(windows), np.zeros(windows)
    maps: Maps | None = None
    for window in range(windows):
        if maps is None or not np.array_equal(tables[window], tables[window - 1]):
            maps = Maps(Placement(tables[window], ranks, experts), asked.cluster.num_nodes)
        seen = []
        for counts, batch in zip(block.steps[window].counts, batches[window], strict=True):
            if counts.any():
                slots = slot_tokens(rule, maps, counts.astype(np.float64), batch)
                by_rank = slots.reshape(len(slots), ranks, -1)
                load = by_rank.sum(axis=2)
                largest = load.max(axis=1)
                ratio = np.divide(load.mean(axis=1), largest, out=np.ones_like(largest), where=largest > 0)
                seen.append((ratio.mean(), (by_rank > 0).sum(axis=2).max(axis=1).mean()))
        if seen:
            balance[window], active[window] = np.mean(seen, axis=0)
    return Realised(balance, active)
