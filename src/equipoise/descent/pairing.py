"""Two slots a rank: the counts decide everything, since pairing largest with smallest is optimal for them.

A busiest rank of T is possible if and only if, for every theta below T / 2, the replicas that weigh more than
T - theta are no more than those that weigh at most theta: each of the former needs one of the latter for company
(Hall's condition on nested neighbourhoods). The search counts this deficit on a grid of thetas,
moves slots between experts to bring it to zero, and lowers T as long as that succeeds.
"""

from __future__ import annotations

import numpy as np

from equipoise.descent.counts import count_least_largest, set_target
from equipoise.descent.facts import AIM, BOUND, EFFORT, NEVER, PAIRED, REACHED, TARGET
from equipoise.descent.layer import (
    busiest,
    goes_on,
    keep,
    new_layer,
    read_layer,
    replica_cost,
    set_ranks,
    skips,
    write_layer,
)
from equipoise.descent.sorting import sort_ascending
from equipoise.descent.swaps import improve
from equipoise.descent.tuning import FEW, PAIRING_TRIES
from equipoise.kernels.bits import bits_for
from equipoise.kernels.native import allocating, internal, native
from equipoise.kernels.separate.numba import separate

__all__ = ["pair", "pair_rows", "search_counts"]

GRID = 96
DOWN = 0.5  # of the way from the heaviest pair reached to what cannot be: the next T
LOOKS = 24  # receivers that a move is chosen from
FEWER, NOW, MORE = map(np.int64, range(3))
FIRST = np.int64(0)  # row
FORBIDDEN = 1000  # a replica above T itself weighs as much as that many deficits
CLIP = 4000  # a deficit counts at most so much, so that the sum of squares fits into 32 bits


@native
def pair_rows(by_load, bits, max_gap, facts, held, stop):
    """Fill ``held`` [rows, ranks, 2] with first descents of layers of two slots a rank."""
    _, num_ranks, slots = held.shape
    layer = new_layer(num_ranks, slots, by_load.shape[1], np.int64(0), stop)
    for row in range(len(by_load)):
        read_layer(layer, by_load[row], bits, facts[row])
        layer.facts[AIM] = _pair_layer(layer, max_gap)
        write_layer(layer, by_load[row], bits, facts[row], held[row])


@allocating
def _pair_layer(layer, max_gap):
    """Keep the best of the pairings that the effort and every smaller one find; smaller ones may have to part fewer.

    Where no pair had to be parted, no other placement of the same counts is better, and all counts are tried only
    where slots are few. Returns what a search beyond may aim for, or -1 where none makes sense.
    """
    facts, num_ranks = layer.facts, layer.best.shape[0]
    effort, aim = facts[EFFORT], NEVER
    set_target(layer, max_gap)
    for attempt in range(effort + 1):
        tries = PAIRING_TRIES[effort if attempt == 0 else attempt - 1]
        count_least_largest(layer.weight, 2 * num_ranks, num_ranks, layer.ranks.replicas)
        facts[PAIRED] += search_counts(layer, max_gap, 0 if skips(layer, PAIRED) else tries)
        paired = pair(layer, layer.ranks.replicas)
        separate(layer.ranks.expert, layer.weight, layer.scratch.spare)
        set_ranks(layer)
        if busiest(layer) > paired:
            improve(layer, facts[TARGET], NEVER)
        if attempt < 2:
            aim = busiest(layer)
        keep(layer)
        within = facts[REACHED] <= facts[TARGET]
        if attempt == 0 and facts[REACHED] <= paired and (within or 2 * num_ranks > FEW):
            return np.int64(-1)
    return aim if facts[REACHED] > facts[TARGET] else np.int64(-1)


@internal
def pair(layer, replicas):
    """Put the largest replica with the smallest, and so on; return the heaviest pair.

    Where an expert would meet itself, which happens only around the middle, neighbouring pairs trade.
    """
    weight, expert, keys = layer.weight, layer.ranks.expert, layer.scratch.keys
    num_ranks = expert.shape[0]
    experts = len(weight)
    bits = bits_for(experts)
    mask = np.int64((1 << bits) - 1)
    for e in range(experts):
        keys[e] = (replica_cost(weight, e, replicas[e]) << bits) | e
    sort_ascending(keys[:experts], layer.scratch.spare)
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


@allocating
def search_counts(layer, max_gap, tries):
    """Improve the counts as far as the search gets, at most ``tries`` values of T; return the slots moved.

    Between the heaviest pair reached and the bound, or the last T that failed, the next T lies ``DOWN`` the way. Most
    are out of reach, and what comes nearest is better than what a T within reach would end with.
    """
    replicas, bound = layer.ranks.replicas, layer.facts[BOUND]
    trial = replicas.copy()
    reached = np.float64(pair(layer, replicas))
    failed = np.float64(bound)
    moved = 0
    for _ in range(tries):
        if reached <= bound * (1.0 + max_gap) or reached <= failed * 1.001 or not goes_on(layer, 0):
            break
        for e in range(len(replicas)):
            trial[e] = replicas[e]
        goal = reached - DOWN * (reached - failed)
        moves = _reach(layer, goal, trial)
        heaviest = np.float64(pair(layer, trial))
        if heaviest < reached:
            reached = heaviest
            for e in range(len(replicas)):
                replicas[e] = trial[e]
            moved += moves
        if heaviest > goal * (1.0 + 1.0 / GRID):
            failed = max(failed, min(goal, reached))
    return moved


@allocating
def _reach(layer, goal, replicas):
    """Move slots until no theta of the grid lacks company for T = ``goal``, or no move helps; return the moves.

    Each move is the one, of many pairs of experts, after which the sum of squared deficits is least. ``steps`` int32
    [experts, 3, 2] holds what each expert adds to the deficit with one replica fewer, as many as now, and one more;
    ``without`` int32 [ranks + 1, grid] what changes if an expert with several gives one up.
    """
    weight, num_ranks = layer.weight, layer.best.shape[0]
    experts = len(weight)
    steps, without = np.zeros((experts, 3, 2), np.int32), np.zeros((num_ranks + 1, GRID), np.int32)
    deficit = np.zeros(GRID, np.int32)
    for e in range(experts):
        _set_steps(weight[e], replicas[e], goal, steps[e])
        if steps[e, NOW, 0] < GRID:
            deficit[steps[e, NOW, 0]] += steps[e, NOW, 1]
    for t in range(1, GRID):
        deficit[t] += deficit[t - 1]
    for moves in range(2 * num_ranks):
        if _squared(deficit) == 0 or not goes_on(layer, 40 * (experts + num_ranks)):
            return moves
        a, b = _best_move(deficit, num_ranks, replicas, steps, without)
        if a < 0:
            return moves
        for e, change in ((a, 1), (b, -1)):
            _add_step(deficit, steps[e, NOW], np.int32(-1))
            replicas[e] += change
            _set_steps(weight[e], replicas[e], goal, steps[e])
            _add_step(deficit, steps[e, NOW], np.int32(1))
    return 2 * num_ranks


@allocating
def _best_move(deficit, num_ranks, replicas, steps, without):
    """Return who should get a replica and who give one, or -1 where that would not help; ties go to the lowest.

    At no theta does a giver leave less than the one that leaves least there: what a receiver could reach with that
    tells in which order to look at them, and when to stop. At most ``LOOKS`` are looked at.
    """
    experts = len(replicas)
    giver, trial = np.empty(num_ranks, np.int64), np.empty((1, GRID), np.int32)
    givers = _find_givers(replicas, steps, without, giver)
    name, hope = np.empty(experts, np.int64), np.empty(experts, np.int64)  # of receivers
    best = _squared(deficit)
    count, last = 0, np.int64(-1)
    for a in range(experts):
        if replicas[a] >= num_ranks or (last >= 0 and _are_equal(steps, a, last)):
            continue  # experts of about one load change the same, and the first of them will do
        last = a
        if _change(deficit, steps, a, MORE, trial, FIRST):
            name[count], hope[count] = a, _squared_sum(trial, without, givers)
            count += hope[count] < best
    best_a = best_b = -1
    for _ in range(min(count, LOOKS)):
        at = 0
        for i in range(1, count):
            if hope[i] < hope[at] or (hope[i] == hope[at] and name[i] < name[at]):
                at = i
        if hope[at] > best:
            break
        a, count = name[at], count - 1
        name[at], hope[at] = name[count], hope[count]
        _change(deficit, steps, a, MORE, trial, FIRST)
        for k in range(givers):
            after = _squared_sum(trial, without, k)
            if giver[k] != a and (after < best or (after == best and a < best_a)):
                best, best_a, best_b = after, a, giver[k]
    return best_a, best_b


@allocating
def _find_givers(replicas, steps, without, giver):
    """Set who can give a replica up, and what that changes; behind them, the least change at each theta."""
    givers = np.int64(0)
    nothing = np.zeros(GRID, np.int32)
    for b in range(len(replicas)):
        if replicas[b] > 1:
            _change(nothing, steps, b, FEWER, without, givers)
            giver[givers] = b
            givers += 1
    without[givers] = 0
    for k in range(givers):
        for t in range(GRID):
            without[givers, t] = min(without[givers, t], without[k, t])
    return givers


@internal
def _set_steps(weight, count, goal, steps):
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


@internal
def _add_step(array, step, times):
    height = np.int32(times * step[1])
    for t in range(step[0], GRID):
        array[t] += height


@internal
def _are_equal(steps, a, b):
    """Whether one replica more would change the same for both experts."""
    same = True
    for k in range(NOW, MORE + 1):
        same &= steps[a, k, 0] == steps[b, k, 0] and steps[a, k, 1] == steps[b, k, 1]
    return same


@internal
def _change(deficit, steps, e, then, changed, row):
    """Fill a row of ``changed`` with the deficit after expert ``e`` changed its count; return whether one fell."""
    old_at, old_height, new_at, new_height = steps[e, NOW, 0], steps[e, NOW, 1], steps[e, then, 0], steps[e, then, 1]
    fell = np.int32(0)
    for t in range(np.int32(GRID)):
        change = np.int32((new_height if t >= new_at else 0) - (old_height if t >= old_at else 0))
        changed[row, t] = np.int32(deficit[t] + change)
        fell += np.int32((deficit[t] > 0) & (change < 0))
    return fell > 0


@internal
def _squared(deficit):
    """Return the sum of squared deficits.

    In 32 bits throughout, which halves the time: deficits are clipped.
    """
    total = np.int32(0)
    for t in range(GRID):
        lacking = min(max(deficit[t], np.int32(0)), np.int32(CLIP))
        total = np.int32(total + np.int32(lacking * lacking))
    return total


@internal
def _squared_sum(first, second, row):
    """Return the sum of squared deficits where the deficit is the sum of the only row of one and a row of another."""
    total = np.int32(0)
    for t in range(GRID):
        lacking = min(max(np.int32(first[0, t] + second[row, t]), np.int32(0)), np.int32(CLIP))
        total = np.int32(total + np.int32(lacking * lacking))
    return total
