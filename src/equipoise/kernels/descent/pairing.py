"""Two slots a rank: the counts decide everything, since pairing largest with smallest is optimal for them.

A busiest rank of T is possible if and only if, for every theta below T / 2, the replicas that weigh more than
T - theta are no more than those that weigh at most theta: each of the former needs one of the latter for company
(Hall's condition on nested neighbourhoods). The search counts this deficit on a grid of thetas,
moves slots between experts to bring it to zero, and lowers T as long as that succeeds.
"""

from __future__ import annotations

import numpy as np

from equipoise.kernels.descent.state import sort_ascending
from equipoise.kernels.native import native

__all__ = ["pair", "search_counts"]

GRID = 128
FORBIDDEN = 1000  # a replica above T itself weighs as much as that many deficits


@native
def pair(weight, replicas, expert, keys, spare):  # type: ignore[no-untyped-def]
    """Put the largest replica with the smallest, and so on; return the heaviest pair.

    Where an expert would meet itself, which happens only around the middle, neighbouring pairs trade.
    """
    num_ranks = expert.shape[0]
    experts = len(weight)
    bits = 0
    while (1 << bits) < experts:
        bits += 1
    mask = np.int64((1 << bits) - 1)
    for e in range(experts):
        keys[e] = ((weight[e] // replicas[e]) << bits) | e
    sort_ascending(keys[:experts], spare)
    small, large = -1, experts
    left_small = left_large = heaviest = np.int64(0)
    for g in range(num_ranks):
        if left_small == 0:
            small += 1
            left_small = replicas[keys[small] & mask]
        if left_large == 0:
            large -= 1
            left_large = replicas[keys[large] & mask]
        expert[g, 0], expert[g, 1] = keys[large] & mask, keys[small] & mask
        left_small -= 1
        left_large -= 1
        heaviest = max(heaviest, (keys[large] >> bits) + (keys[small] >> bits))
    return heaviest


@native
def search_counts(weight, bound, max_gap, tries, replicas, expert, keys, spare):  # type: ignore[no-untyped-def]
    """Improve ``replicas`` as far as the search gets, at most ``tries`` values of T; return the slots moved.

    Between the heaviest pair reached and ``bound``, or the last T that failed, the next T lies 0.3 of the way down.
    """
    experts, num_ranks = len(weight), expert.shape[0]
    more, fewer = np.zeros((experts, GRID), np.int32), np.zeros((experts, GRID), np.int32)
    deficit = np.zeros(GRID, np.int32)
    trial = replicas.copy()
    reached = np.float64(pair(weight, replicas, expert, keys, spare))
    failed = np.float64(bound)
    moved = 0
    for _ in range(tries):
        if reached <= bound * (1.0 + max_gap) or reached <= failed * 1.001:
            break
        trial[:] = replicas
        goal = reached - 0.3 * (reached - failed)
        moves = _reach(weight, goal, num_ranks, trial, more, fewer, deficit)
        heaviest = np.float64(pair(weight, trial, expert, keys, spare))
        if heaviest < reached:
            reached = heaviest
            replicas[:] = trial
            moved += moves
        if heaviest > goal * (1.0 + 1.0 / GRID):
            failed = max(failed, min(goal, reached))
    return moved


@native
def _reach(weight, goal, num_ranks, replicas, more, fewer, deficit):  # type: ignore[no-untyped-def]
    """Move slots until no theta of the grid lacks company for T = ``goal``, or no move helps; return the moves.

    Each move is the one, of all pairs of experts, after which the sum of squared deficits is least.
    """
    experts = len(weight)
    deficit[:] = 0
    for e in range(experts):
        _add_deficit(weight[e], replicas[e], goal, 1, deficit)
        _set_changes(weight[e], replicas[e], goal, more[e], fewer[e])
    for moves in range(2 * num_ranks):
        best = _squared_deficit(deficit, deficit, deficit, np.int32(0))
        if best == 0:
            return moves
        best_a = best_b = -1
        for a in range(experts):
            if replicas[a] >= num_ranks or not _helps(deficit, more[a]):
                continue
            for b in range(experts):
                if replicas[b] < 2 or a == b:
                    continue
                after = _squared_deficit(deficit, more[a], fewer[b], np.int32(1))
                if after < best:
                    best, best_a, best_b = after, a, b
        if best_a < 0:
            return moves
        for t in range(GRID):
            deficit[t] += more[best_a, t] + fewer[best_b, t]
        replicas[best_a] += 1
        replicas[best_b] -= 1
        for e in (best_a, best_b):
            _set_changes(weight[e], replicas[e], goal, more[e], fewer[e])
    return 2 * num_ranks


@native
def _add_deficit(weight, count, goal, sign, deficit):  # type: ignore[no-untyped-def]
    """Add what ``count`` replicas contribute: theta number t is (t + 1) / GRID of half the goal."""
    each = weight / count
    per_theta = 2.0 * GRID / goal
    if 2.0 * each <= goal:
        for t in range(max(np.int64(np.ceil(each * per_theta)) - 1, 0), GRID):
            deficit[t] -= sign * count
    elif each <= goal:
        for t in range(np.int64(np.floor((goal - each) * per_theta)), GRID):
            deficit[t] += sign * count
    else:
        for t in range(GRID):
            deficit[t] += sign * count * FORBIDDEN


@native
def _set_changes(weight, count, goal, more, fewer):  # type: ignore[no-untyped-def]
    """Set what one replica more, and one fewer, would change."""
    more[:] = 0
    _add_deficit(weight, count, goal, -1, more)
    fewer[:] = more
    _add_deficit(weight, count + 1, goal, 1, more)
    if count > 1:
        _add_deficit(weight, count - 1, goal, 1, fewer)


@native
def _helps(deficit, change):  # type: ignore[no-untyped-def]
    """Whether ``change`` lowers a deficit that is there."""
    helps = False
    for t in range(GRID):
        helps |= deficit[t] > 0 and change[t] < 0
    return helps


@native
def _squared_deficit(deficit, first, second, times):  # type: ignore[no-untyped-def]
    """Return the sum of squared deficits after two changes, ``times`` 0 or 1.

    In 32 bits throughout, which halves the time: a deficit counts at most 4,000, so that the sum fits.
    """
    total = np.int32(0)
    for t in range(GRID):
        lacking = np.int32(deficit[t] + np.int32(times * np.int32(first[t] + second[t])))
        lacking = min(max(lacking, np.int32(0)), np.int32(4000))
        total = np.int32(total + np.int32(lacking * lacking))
    return total
