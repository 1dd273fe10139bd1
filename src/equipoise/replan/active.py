"""Which rank takes over which active replicas, where dormant ones may be of whatever it holds already.

A dormant replica gets no tokens: it fills a slot that no active one needs, and any expert of the node will do. So of a
planned rank only the active replicas are given, and an old rank keeps, beside those of them that it holds, as many
other experts as there are slots left. That number is known in closed form, so what leaves most in place is an
assignment problem, as in ``match_ranks.py``, solved exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.assignment.numba import assign
from equipoise.threads import part

__all__ = ["fill_dormant", "match_active"]

Ints = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@part
def match_active(active: Ints, old: Ints, num_experts: int, num_nodes: int) -> Int64s:
    """Return which planned rank each rank takes over, int64 [layers, ranks].

    Parameters
    ----------
    active : int32 array, shape (num_layers, num_ranks, slots)
        The expert in each slot; -1 where a dormant replica may be of any expert that its node holds.
    old : int32 array, shape (num_layers, num_ranks, any number of slots)
        What is in force, -1 for an empty slot.
    num_experts : int
    num_nodes : int
        Ranks that change places do so within a node, and nodes as a whole.

    Returns
    -------
    int64 array, shape (num_layers, num_ranks)
        No other choice lets ranks keep more of what they hold, once ``fill_dormant`` has filled the slots that are
        left; of those that keep as much, none lets more stay in its slot. The same arguments give the same bits.
    """
    home = _homes(active, num_experts, num_nodes)
    return np.stack([_match(*each) for each in zip(active, old, home, strict=True)])


@part
def fill_dormant(held: Ints, old: Ints, tokens: Floats, num_nodes: int) -> None:
    """Put experts that a rank holds in ``old`` into its empty slots of ``held``, in place, as many as there are.

    ``held`` and ``old`` are as in ``match_active``, with ranks and nodes matched; ``tokens`` float64 [layers, experts]
    are those of an active replica: who would get most comes first, ties to the lowest slot. No rank gets an expert
    twice, unless it has more slots than its node has experts. Slots for which there is none stay -1.
    """
    ranks, slots = held.shape[1:]
    layer = np.arange(len(held))[:, None, None]
    home, node = _homes(held, tokens.shape[1], num_nodes), np.arange(ranks) * num_nodes // ranks
    known = home[layer, node[:, None], old] & (_turns(old) == 0)
    new = known & ~(old[..., None] == held[:, :, None]).any(axis=3)
    worth = np.where(known, tokens[layer, old], -1.0)
    order = np.argsort(np.where(new, -worth, 1.0), axis=2, kind="stable")
    by_worth = np.take_along_axis(old, order, axis=2)
    heaviest = np.take_along_axis(old, worth.argmax(axis=2)[..., None], axis=2)[..., 0]
    empty, number = (held < 0).sum(axis=2), new.sum(axis=2)
    room = home.sum(axis=2)[:, node] - _distinct(held)
    twice = np.where(known.any(axis=2), np.maximum(empty - room, 0), 0)
    at = np.argsort(held >= 0, axis=2, kind="stable")  # the empty slots first
    for i in range(slots):
        other = by_worth[:, :, min(i, old.shape[2] - 1)]
        each = np.where(i < number, other, np.where(i < number + twice, heaviest, np.int32(-1)))
        before = np.take_along_axis(held, at[:, :, i : i + 1], axis=2)[..., 0]
        np.put_along_axis(held, at[:, :, i : i + 1], np.where(before < 0, each, before)[..., None], axis=2)


def _match(active: Ints, old: Ints, home: Bools) -> Int64s:
    """Return which planned rank each rank of one layer takes over; ``home`` is as ``_homes`` returns it."""
    ranks, most = len(active), max(active.shape[1], old.shape[1])
    node = np.arange(ranks) * len(home) // ranks
    copies = np.zeros((ranks, home.shape[1]), np.int64)
    np.add.at(copies, (np.arange(ranks)[:, None], old), 1)
    copies[:, -1] = 0
    mine, turn = copies[:, active], _turns(active)  # [old ranks, planned ranks, slots]
    stay, in_place = (mine > 0).sum(axis=2).T, (mine > turn).sum(axis=2).T
    there = (home[:, old] & (_turns(old) == 0)).sum(axis=2)[node]  # experts of the planned rank's node, on the old one
    empty = (active < 0).sum(axis=1)
    others = np.minimum(empty[:, None], there - ((mine > 0) & (turn == 0)).sum(axis=2).T)
    twice = np.maximum(empty - home.sum(axis=1)[node] + _distinct(active), 0)[:, None] * (there > 0)
    # One more than all slots of a rank for each that stays, so that transfers count first, as in ``match_ranks``.
    return _assigned(-((most + 1) * (stay + others + twice) + in_place + others), len(home), most + 1)


def _assigned(cost: Int64s, nodes: int, transfer: int) -> Int64s:
    """Return the row for each column at the least cost, nodes as wholes; these by what ``transfer`` costs alone."""
    if nodes == 1:
        return np.asarray(assign(np.ascontiguousarray(cost)))
    ranks = len(cost) // nodes
    blocks = np.ascontiguousarray(cost.reshape(nodes, ranks, nodes, ranks).transpose(0, 2, 1, 3))
    rows = np.array([[assign(block) for block in of_node] for of_node in blocks])
    kept = -np.take_along_axis(blocks, rows[:, :, None], axis=2)[:, :, 0] // transfer
    source = assign(-kept.sum(axis=2))  # the planned node that each node takes over
    return np.concatenate([a * ranks + rows[a, b] for b, a in enumerate(source)])


def _homes(active: Ints, num_experts: int, num_nodes: int) -> Bools:
    """Return which experts each node holds, [layers, nodes, experts + 1]; the last column is that of empty slots."""
    home = np.zeros((len(active), num_nodes, num_experts + 1), np.bool_)
    of_node = active.reshape(len(active), num_nodes, -1)
    home[np.arange(len(active))[:, None, None], np.arange(num_nodes)[:, None], of_node] = True
    home[:, :, -1] = False
    return home


def _turns(table: Ints) -> Int64s:
    """Return how many slots before each slot of its rank hold the same expert; ranks are the last axis but one."""
    turns = np.zeros(table.shape, np.int64)
    for s in range(1, table.shape[-1]):
        turns[..., s] = (table[..., :s] == table[..., s : s + 1]).sum(axis=-1)
    return turns


def _distinct(table: Ints) -> Int64s:
    """Return how many experts each rank holds, each counted once."""
    return np.asarray(((table >= 0) & (_turns(table) == 0)).sum(axis=-1))
