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
FEWER, NOW, MORE = range(3)
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
    steps, without = np.zeros((experts, 3, 2), np.int32), np.zeros((num_ranks, GRID), np.int32)
    trial = replicas.copy()
    reached = np.float64(pair(weight, replicas, expert, keys, spare))
    failed = np.float64(bound)
    moved = 0
    for _ in range(tries):
        if reached <= bound * (1.0 + max_gap) or reached <= failed * 1.001:
            break
        trial[:] = replicas
        goal = reached - 0.3 * (reached - failed)
        moves = _reach(weight, goal, num_ranks, trial, steps, without)
        heaviest = np.float64(pair(weight, trial, expert, keys, spare))
        if heaviest < reached:
            reached = heaviest
            replicas[:] = trial
            moved += moves
        if heaviest > goal * (1.0 + 1.0 / GRID):
            failed = max(failed, min(goal, reached))
    return moved


@native
def _reach(weight, goal, num_ranks, replicas, steps, without):  # type: ignore[no-untyped-def]
    """Move slots until no theta of the grid lacks company for T = ``goal``, or no move helps; return the moves.

    Each move is the one, of all pairs of experts, after which the sum of squared deficits is least. ``steps`` int32
    [experts, 3, 2] holds what each expert adds to the deficit with one replica fewer, as many as now, and one more;
    ``without`` int32 [ranks, grid] what changes if an expert with several gives one up.
    """
    experts = len(weight)
    deficit, nothing, trial = np.zeros(GRID, np.int32), np.zeros(GRID, np.int32), np.empty(GRID, np.int32)
    giver = np.empty(num_ranks, np.int64)
    for e in range(experts):
        _set_steps(weight[e], replicas[e], goal, steps[e])
        _add_step(deficit, steps[e, NOW], np.int32(1))
    for moves in range(2 * num_ranks):
        best = _squared(deficit)
        if best == 0:
            return moves
        givers = 0
        for b in range(experts):
            if replicas[b] > 1:
                _change(nothing, steps[b, NOW], steps[b, FEWER], without[givers])
                giver[givers] = b
                givers += 1
        best_a = best_b = last = -1
        for a in range(experts):
            if replicas[a] >= num_ranks or (last >= 0 and _equal(steps[a, NOW:], steps[last, NOW:])):
                continue  # experts of about one load change the same, and the first of them will do
            last = a
            if not _change(deficit, steps[a, NOW], steps[a, MORE], trial):
                continue
            for k in range(givers):
                after = _squared_sum(trial, without[k])
                if after < best and giver[k] != a:
                    best, best_a, best_b = after, a, giver[k]
        if best_a < 0:
            return moves
        for e, change in ((best_a, 1), (best_b, -1)):
            _add_step(deficit, steps[e, NOW], np.int32(-1))
            replicas[e] += change
            _set_steps(weight[e], replicas[e], goal, steps[e])
            _add_step(deficit, steps[e, NOW], np.int32(1))
    return 2 * num_ranks


@native
def _set_steps(weight, count, goal, steps):  # type: ignore[no-untyped-def]
    """Set what ``count`` - 1, ``count`` and ``count`` + 1 replicas add: a height, from a place on the grid on.

    Theta number t is (t + 1) / GRID of half the goal.
    """
    per_theta = 2.0 * GRID / goal
    for k in range(FEWER if count > 1 else NOW, MORE + 1):
        replicas = count + k - NOW
        each = weight / replicas
        at, height = np.int64(0), replicas * FORBIDDEN
        if 2.0 * each <= goal:
            at, height = max(np.int64(np.ceil(each * per_theta)) - 1, 0), -replicas
        elif each <= goal:
            at, height = np.int64(np.floor((goal - each) * per_theta)), replicas
        steps[k, 0], steps[k, 1] = at, height


@native
def _add_step(array, step, times):  # type: ignore[no-untyped-def]
    height = np.int32(times * step[1])
    for t in range(step[0], GRID):
        array[t] += height


@native
def _equal(first, second):  # type: ignore[no-untyped-def]
    return (
        first[0, 0] == second[0, 0]
        and first[0, 1] == second[0, 1]
        and first[1, 0] == second[1, 0]
        and first[1, 1] == second[1, 1]
    )


@native
def _change(deficit, old, new, changed):  # type: ignore[no-untyped-def]
    """Fill ``changed`` with the deficit after step ``old`` gave way to ``new``; return whether a deficit fell."""
    old_at, old_height, new_at, new_height = old[0], old[1], new[0], new[1]
    fell = np.int32(0)
    for t in range(np.int32(GRID)):
        change = np.int32((new_height if t >= new_at else 0) - (old_height if t >= old_at else 0))
        changed[t] = np.int32(deficit[t] + change)
        fell += np.int32((deficit[t] > 0) & (change < 0))
    return fell > 0


@native
def _squared(deficit):  # type: ignore[no-untyped-def]
    """Return the sum of squared deficits.

    In 32 bits throughout, which halves the time: a deficit counts at most 4,000, so that the sum fits.
    """
    total = np.int32(0)
    for t in range(GRID):
        lacking = min(max(deficit[t], np.int32(0)), np.int32(4000))
        total = np.int32(total + np.int32(lacking * lacking))
    return total


@native
def _squared_sum(first, second):  # type: ignore[no-untyped-def]
    """Return the sum of squared deficits where the deficit is the sum of two."""
    total = np.int32(0)
    for t in range(GRID):
        lacking = min(max(np.int32(first[t] + second[t]), np.int32(0)), np.int32(4000))
        total = np.int32(total + np.int32(lacking * lacking))
    return total
