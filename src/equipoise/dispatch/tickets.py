"""Shares as the tables that engines have: lists of slots, of which each token takes one, and slots for source ranks.

An engine that spreads the tokens of an expert evenly over the slots in a list spreads them by any shares where slots
are listed more than once: tickets, as in lottery scheduling (Waldspurger and Weihl 1994), dealt by largest remainders
and interleaved, so that any run of tokens is spread alike. A dormant slot is not listed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.shares import Shares

__all__ = ["assign_ranks", "list_slots"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
TURN = 37  # entries by which the list of an expert is turned against that of the one before: odd, so that all differ


def list_slots(shares: Shares, width: int, *, step: int = 1, least: int = 0) -> tuple[Ints, Ints]:
    """Return the slots that the tokens of each expert take in turn, and how many are in each list.

    Parameters
    ----------
    shares : Shares
    width : int
        Entries of an uneven list, a power of two: shares are kept to half of one in so many.
    step : int, default 1
        Entries from one token to the next, odd, where the engine goes through a list in such steps.
    least : int, default 0
        Entries that every replica has at least: 1 keeps all of them in use.

    Returns
    -------
    slots : int64 array, shape (num_layers, num_logical_experts, longest list)
        -1 after the end of a list.
    count : int64 array, shape (num_layers, num_logical_experts)
        Where the replicas in use have equal shares, they are listed once each, ascending.

    Examples
    --------
    >>> from equipoise.placement import Placement
    >>> placement = Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    >>> slots, count = list_slots(Shares([[0.25, 1, 0.75, 1]], placement), 4)
    >>> slots.tolist(), count.tolist()
    ([[[2, 0, 2, 2], [1, -1, -1, -1], [3, -1, -1, -1]]], [[4, 1, 1]])
    """
    replicas = shares.placement.logical_to_physical.astype(np.int64)
    layers = np.arange(len(replicas))[:, None, None]
    part = np.where(replicas >= 0, shares.values[layers, replicas], 0.0)
    tickets = _deal(part, width, np.where(replicas >= 0, least, 0))
    used = tickets > 0
    most = np.where(used, part, 0.0).max(axis=2)
    spread = most - np.where(used, part, np.inf).min(axis=2, initial=np.inf)
    uneven = (spread > 0.5 / width) & (used.sum(axis=2) > 1)
    tickets = np.where(uneven[:, :, None], tickets, used)
    count = tickets.sum(axis=2)
    slots = np.full((*count.shape, max(int(count.max()), 1)), -1, np.int64)
    order = np.argsort(~used, axis=2, kind="stable")
    once = np.take_along_axis(np.where(used, replicas, -1), order, axis=2)
    columns = min(once.shape[2], slots.shape[2])
    slots[:, :, :columns] = once[:, :, :columns]
    where = np.nonzero(uneven)
    if len(where[0]):
        lists = np.full((len(where[0]), slots.shape[2]), -1, np.int64)
        lists[:, :width] = _interleave(tickets[where], replicas[where], where[1], width, step)
        slots[where] = lists
    return slots, count


def _deal(part: Floats, width: int, least: Ints) -> Ints:
    """Return whole numbers that sum to ``width`` over the last axis, as near to ``part`` of it as whole numbers are.

    By largest remainders, ties to the lowest index; zeros where ``part`` is nothing at all.
    """
    exact = part * width
    whole = np.maximum(np.floor(exact + 1e-9).astype(np.int64), least)
    there = part.sum(axis=-1, keepdims=True) > 0
    missing = np.where(there, width - whole.sum(axis=-1, keepdims=True), 0)
    rank = np.argsort(np.argsort(-(exact - whole), axis=-1, kind="stable"), axis=-1, kind="stable")
    whole += rank < missing
    for _ in range(int(np.maximum(-missing, 0).max())):  # what ``least`` added comes from the largest
        largest = np.argmax(whole, axis=-1, keepdims=True)
        too_many = there & (whole.sum(axis=-1, keepdims=True) > width)
        np.put_along_axis(whole, largest, np.take_along_axis(whole, largest, -1) - too_many, axis=-1)
    return np.where(there, whole, 0)


def _interleave(tickets: Ints, replicas: Ints, expert: Ints, width: int, step: int) -> Ints:
    """Return lists [lists, width] of slots in which each comes as evenly as its ``tickets`` allow."""
    lists = np.empty((len(tickets), width), np.int64)
    given, row = np.zeros_like(tickets), np.arange(len(tickets))
    for turn in range(width):
        behind = np.where(given < tickets, tickets * (2 * turn + 1) - 2 * given * width, np.iinfo(np.int64).min)
        chosen = behind.argmax(axis=1)
        given[row, chosen] += 1
        lists[row, (turn + TURN * expert) * step % width] = replicas[row, chosen]
    return lists


def assign_ranks(part: Floats, home: Ints, num_ranks: int) -> Ints:
    """Return the replica that each source rank sends the tokens of one expert to: int64 [num_ranks].

    ``part`` float64 [replicas] are its shares, kept to one in ``num_ranks``, for ranks that route equally many tokens;
    ``home`` int64 [replicas] is the rank of each. Ranks that hold a replica use it while it has room.

    >>> assign_ranks(np.array([0.75, 0.25]), np.array([0, 3]), 4).tolist()
    [0, 0, 0, 1]
    """
    left = _deal(part[None], num_ranks, np.zeros((1, len(part)), np.int64))[0]
    chosen = np.full(num_ranks, -1, np.int64)
    for replica, rank in enumerate(home):
        if left[replica] > 0 and chosen[rank] < 0:
            chosen[rank], left[replica] = replica, left[replica] - 1
    for rank in np.flatnonzero(chosen < 0):
        chosen[rank] = left.argmax()
        left[chosen[rank]] -= 1
    return chosen
