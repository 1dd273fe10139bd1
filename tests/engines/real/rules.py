"""Random tables and batches, and what our copy of a rule makes of them, for scripts that ask the engine itself."""

from __future__ import annotations

import numpy as np

import equipoise as eq
from equipoise.dispatch.rules import Batch, Maps

__all__ = ["batch_on_rank", "random_placement"]


def random_placement(seed, ranks=8, per_rank=5, experts=32, layers=3):
    """Return a placement with every expert, and the rest at random."""
    draw = np.random.default_rng(seed)
    spare = ranks * per_rank - experts
    tables = [draw.permutation(np.concatenate([np.arange(experts), draw.integers(0, 6, spare)])) for _ in range(layers)]
    return eq.Placement(np.array(tables), ranks, experts)


def batch_on_rank(ids, layer, rank, draws=None):
    """Return a batch of the tokens [tokens, k] of one layer, all on one rank, entry by entry as they lie in memory."""
    tokens, k = ids.shape
    number = tokens * k
    row = np.repeat(np.arange(tokens), k)
    draw = np.zeros(number, np.int64) if draws is None else draws.reshape(-1)
    whole = np.full(number, layer), ids.reshape(-1), np.full(number, rank)
    return Batch(np.zeros(number, np.int64), *whole, row, draw)


def chosen(rule, placement, ids, layer, rank, draws=None, num_nodes=1):
    """Return the slots [tokens, k] by one of our rules."""
    return rule.choose(Maps(placement, num_nodes), batch_on_rank(ids, layer, rank, draws)).reshape(ids.shape)
