"""Shares that leave the busiest rank least, in plain Python, readable as the specification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.waterfill import LEAST_GAIN, LOOK_EVERY, SWEEPS

__all__ = ["pour"]

Flow = dict[int, dict[int, float]]
"""Tokens that each rank gets of each expert that more than one rank holds."""


def pour(
    physical_to_logical: NDArray[np.int32], load: NDArray[np.float64], num_ranks: int, gap: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the shares of each layer's slots and the ranks that prove them; see the folder's contract."""
    layers = [
        _pour_layer(slots, tokens, num_ranks, gap)
        for slots, tokens in zip(physical_to_logical.tolist(), load.tolist(), strict=True)
    ]
    tight = np.array([[rank in proof for rank in range(num_ranks)] for _, proof in layers])
    return np.array([shares for shares, _ in layers]), tight


def _pour_layer(slots: list[int], tokens: list[float], num_ranks: int, gap: float) -> tuple[list[float], set[int]]:
    rank_of = [slot // (len(slots) // num_ranks) for slot in range(len(slots))]
    count = {e: slots.count(e) for e in slots if e >= 0}
    homes = {e: sorted({rank_of[slot] for slot, held in enumerate(slots) if held == e}) for e in sorted(count)}
    flow: Flow = {e: dict.fromkeys(ranks, 0.0) for e, ranks in homes.items() if len(ranks) > 1 and tokens[e] > 0}
    carried, fixed = [0.0] * num_ranks, [0.0] * num_ranks
    for slot, e in enumerate(slots):
        if e >= 0:
            carried[rank_of[slot]] += tokens[e] / count[e]
            if e in flow:
                flow[e][rank_of[slot]] += tokens[e] / count[e]
            else:
                fixed[rank_of[slot]] += tokens[e] / count[e]
    low, tight, sweep, even = 0.0, set(range(num_ranks)), 0, max(carried)
    while True:
        low, tight = _look(flow, tokens, carried, fixed, low, tight)
        if max(carried) <= low * (1.0 + gap) or sweep >= SWEEPS:
            break
        for _ in range(LOOK_EVERY):
            for e in sorted(flow, reverse=sweep % 2 == 1):
                _pour_expert(flow[e], tokens[e], carried)
            sweep += 1
    if max(carried) > low * (1.0 + gap):
        tight = _push(flow, carried, low, gap, tight)
    evenly = max(carried) >= even * (1.0 - LEAST_GAIN)
    total = {e: 0.0 if evenly else sum(flow[e].values()) for e in flow}
    copies = [sum(held == e for held in _of_rank(slots, rank_of, rank_of[slot])) for slot, e in enumerate(slots)]
    shares = [
        0.0 if e < 0 else flow[e][rank_of[slot]] / total[e] / copies[slot] if total.get(e) else 1.0 / count[e]
        for slot, e in enumerate(slots)
    ]
    return shares, tight


def _pour_expert(flow: dict[int, float], tokens: float, carried: list[float]) -> None:
    """Pour one expert over its ranks: the lowest fill first, until they stand level with the next."""
    below = sorted((carried[rank] - flow[rank], rank) for rank in flow)
    total, wet, level = tokens, 0, 0.0
    while wet < len(below) and (wet == 0 or level > below[wet][0]):
        total += below[wet][0]
        wet += 1
        level = total / wet
    for at, (without, rank) in enumerate(below):
        flow[rank] = level - without if at < wet else 0.0
        carried[rank] = level if at < wet else without


def _look(
    flow: Flow, tokens: list[float], carried: list[float], fixed: list[float], low: float, tight: set[int]
) -> tuple[float, set[int]]:
    """Return the most that one of the sets of the k busiest ranks must carry on average, and the set."""
    order = sorted(range(len(carried)), key=lambda rank: (-carried[rank], rank))
    inside = [fixed[rank] for rank in order]
    for e in sorted(flow):
        inside[max(order.index(rank) for rank in flow[e])] += tokens[e]
    total = 0.0
    for at, more in enumerate(inside):
        total += more
        if total / (at + 1) > low:
            low, tight = total / (at + 1), set(order[: at + 1])
    return low, tight


def _push(flow: Flow, carried: list[float], low: float, gap: float, tight: set[int]) -> set[int]:
    """Push tokens along shortest paths until no rank is above the bound, which rises where there is no path."""
    while max(carried) > low * (1.0 + gap):
        source = carried.index(max(carried))
        via: dict[int, tuple[int, int]] = {}
        queue = [source]
        goal = None
        for here in queue:
            for e in sorted((e for e in flow if flow[e].get(here, 0.0) > 0.0), reverse=True):
                for there in flow[e]:
                    if goal is None and there not in queue:
                        via[there] = (here, e)
                        queue.append(there)
                        goal = there if carried[there] < low else None
            if goal is not None:
                break
        if goal is None:
            total = 0.0
            for rank in queue:
                total += carried[rank]
            low, tight = total / len(queue), set(queue)
            continue
        steps = []
        while goal != source:
            steps.append((*via[goal], goal))
            goal = via[goal][0]
        moved = min(carried[source] - low, low - carried[steps[0][2]])
        moved = min(moved, *(flow[e][here] for here, e, _ in steps))
        carried[source] -= moved
        carried[steps[0][2]] += moved
        for here, e, there in steps:
            flow[e][here] -= moved
            flow[e][there] += moved
    return tight


def _of_rank(slots: list[int], rank_of: list[int], rank: int) -> list[int]:
    return [e for e, where in zip(slots, rank_of, strict=True) if where == rank]
