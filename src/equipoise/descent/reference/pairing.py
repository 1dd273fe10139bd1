"""Two slots a rank: pairing largest with smallest is optimal for given counts, so the counts decide everything.

A busiest rank of T is possible if and only if, for every theta below T / 2, the replicas that weigh more than T - theta
are no more than those that weigh at most theta: each of the former needs one of the latter for company. The search
counts by how many they are more, the deficit, on a grid of thetas; moves slots between experts until there is none; and
lowers T as long as that succeeds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.descent.facts import BOUND, EFFORT, NEVER, PAIRED, REACHED, TARGET
from equipoise.descent.reference.layer import Layer
from equipoise.descent.reference.swaps import improve
from equipoise.descent.tuning import FEW, PAIRING_TRIES

__all__ = ["pair_layer"]

GRID = 96
DOWN = 0.5  # of the way from the heaviest pair reached to what cannot be: the next T
LOOKS = 24  # receivers that a move is chosen from
FORBIDDEN = 1000  # a replica above T itself weighs as much as that many deficits
CLIP = 4000  # a deficit counts at most so much


def pair_layer(layer: Layer, max_gap: float) -> int:
    """Keep the best of the pairings that the effort and every smaller one find; smaller ones may have to part fewer.

    Where no pair had to be parted, no other placement of the same counts is better, and all counts are tried only
    where slots are few. Returns what a search beyond may aim for.
    """
    facts, num_slots = layer.facts, 2 * layer.num_ranks
    first, aim = layer.replicas, NEVER
    for attempt in range(facts[EFFORT] + 1):
        tries = int(PAIRING_TRIES[facts[EFFORT] if attempt == 0 else attempt - 1])
        counts, moved = search_counts(layer, first, max_gap, 0 if layer.skips(PAIRED) else tries)
        facts[PAIRED] += moved
        paired = pair(layer, counts)
        layer.place(layer.apart(layer.held))
        if layer.busiest() > paired:
            improve(layer, facts[TARGET], NEVER)
        if attempt < 2:
            aim = layer.busiest()
        layer.keep()
        within = facts[REACHED] <= facts[TARGET]
        if attempt == 0 and facts[REACHED] <= paired and (within or num_slots > FEW):
            return -1
    return aim if facts[REACHED] > facts[TARGET] else -1


def pair(layer: Layer, replicas: list[int]) -> int:
    """Put the largest replica with the smallest, and so on; return the heaviest pair."""
    layer.set_counts(replicas)
    each = layer.each
    queue = [e for e in sorted(range(len(each)), key=lambda e: (each[e], e)) for _ in range(replicas[e])]
    layer.held = [[queue[-1 - g], queue[g]] for g in range(layer.num_ranks)]
    return max(each[large] + each[small] for large, small in layer.held)


def search_counts(layer: Layer, replicas: list[int], max_gap: float, tries: int) -> tuple[list[int], int]:
    """Improve the counts as far as the search gets, at most ``tries`` values of T; return them and the slots moved."""
    bound = layer.facts[BOUND]
    reached, failed, moved = float(pair(layer, replicas)), float(bound), 0
    for _ in range(tries):
        if reached <= bound * (1.0 + max_gap) or reached <= failed * 1.001 or not layer.goes_on():
            break
        goal = reached - DOWN * (reached - failed)
        trial, moves = _reach(layer, goal, replicas)
        heaviest = float(pair(layer, trial))
        if heaviest < reached:
            reached, replicas = heaviest, trial
            moved += moves
        if heaviest > goal * (1.0 + 1.0 / GRID):
            failed = max(failed, min(goal, reached))
    return replicas, moved


def _reach(layer: Layer, goal: float, replicas: list[int]) -> tuple[list[int], int]:
    """Move slots until every theta has company for T = ``goal``, or no move helps; return the counts and the moves.

    Each move is the one after which the sum of squared deficits is least, of those that are looked at.
    """
    weight, most = layer.weight, 2 * layer.num_ranks
    replicas = list(replicas)
    for moves in range(most):
        now = [_adds(load, count, goal) for load, count in zip(weight, replicas, strict=True)]
        deficit = sum(_on_grid(step) for step in now)
        if _squared_deficit(deficit) == 0 or not layer.goes_on(40 * (len(weight) + layer.num_ranks)):
            return replicas, moves
        move = _best_move(layer, goal, replicas, now, deficit)
        if move is None:
            return replicas, moves
        gainer, loser = move
        replicas[gainer] += 1
        replicas[loser] -= 1
    return replicas, most


def _best_move(
    layer: Layer, goal: float, replicas: list[int], now: list[tuple[int, int]], deficit: Any
) -> tuple[int, int] | None:
    """Return who should get a replica and who give one, or None where that would not help; ties go to the lowest.

    Receivers are looked at in the order of what they could reach with a giver that leaves least at every theta.
    """
    experts = range(len(replicas))

    def change(e: int, count: int) -> Any:
        return _on_grid(_adds(layer.weight[e], count, goal)) - _on_grid(now[e])

    givers = [(b, change(b, replicas[b] - 1)) for b in experts if replicas[b] > 1]
    least = np.minimum.reduce([np.zeros(GRID, np.int64), *(given for _, given in givers)])
    best, found = _squared_deficit(deficit), None
    receivers = []
    last = None
    for a in experts:
        steps = now[a], _adds(layer.weight[a], replicas[a] + 1, goal)
        if replicas[a] >= layer.num_ranks or steps == last:
            continue  # experts of about one load change the same, and the first of them will do
        last = steps
        gained = change(a, replicas[a] + 1)
        if ((deficit > 0) & (gained < 0)).any():
            receivers.append((_squared_deficit(deficit + gained + least), a, deficit + gained))
    receivers = sorted((hope, a, after) for hope, a, after in receivers if hope < best)[:LOOKS]
    for hope, a, trial in receivers:
        if hope > best:
            break
        for b, given in givers:
            after = _squared_deficit(trial + given)
            if b != a and (after < best or (after == best and found is not None and a < found[0])):
                best, found = after, (a, b)
    return found


def _adds(load: int, count: int, goal: float) -> tuple[int, int]:
    """Return what ``count`` replicas add to the deficit: from which theta on, and how much.

    Theta number t is (t + 1) / GRID of half the goal. From its own size on, a small replica is company; a large one
    lacks company wherever what it leaves below the goal is too little.
    """
    each, per_theta = load / count, 2.0 * GRID / goal
    if 2.0 * each <= goal:
        return max(math.ceil(each * per_theta) - 1, 0), -count
    if each <= goal:
        return math.floor((goal - each) * per_theta), count
    return 0, count * FORBIDDEN


def _on_grid(step: tuple[int, int]) -> NDArray[np.int64]:
    at, height = step
    return np.where(np.arange(GRID) >= at, height, 0)


def _squared_deficit(deficit: Any) -> int:
    return int((np.clip(deficit, 0, CLIP) ** 2).sum())
