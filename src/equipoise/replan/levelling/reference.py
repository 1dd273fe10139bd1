"""Re-planning in plain Python, readable as the specification: every step is tried out in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.replan.levelling import EMPTY, GONE

__all__ = ["descend"]

Slots = list[list[int]]  # [rank][slot]
MAX = 2**63 - 1


def descend(
    held: NDArray[np.int32],
    was: NDArray[np.bool_],
    weight: NDArray[np.int64],
    node: NDArray[np.int32],
    home: NDArray[np.int32],
    level: NDArray[np.int64],
    limit: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Level the ranks of each layer; see the folder's contract."""
    curve = np.full((len(held), int(limit.max()) + 1), MAX)
    spent = np.zeros(len(held), dtype=np.int64)
    out = held.copy()
    for row in range(len(held)):
        layer = _Layer(was[row], weight[row].tolist(), node.tolist(), home[row].tolist(), int(level[row]))
        now: Slots = held[row].tolist()
        layer.shift = layer.least_shift(max(layer.loads(now)))
        most = layer.transfers(now)
        while True:
            curve[row, most] = max(layer.loads(now))
            best, after = 0, now
            for step in layer.steps(now):
                score = layer.score(now, step)
                if score > best:
                    best, after = score, step
            if best == 0 or layer.transfers(after) > limit[row]:
                break
            now = after
            most = max(most, layer.transfers(now))
        out[row], spent[row] = now, layer.transfers(now)
        curve[row] = np.minimum.accumulate(curve[row])
    return out, curve, spent


class _Layer:
    shift = 0

    def __init__(self, was: Any, weight: list[int], node: list[int], home: list[int], level: int) -> None:
        self.was, self.weight, self.node, self.home, self.level = was, weight, node, home, level

    def replicas(self, held: Slots) -> list[int]:
        return [sum(slots.count(e) for slots in held) for e in range(len(self.weight))]

    def loads(self, held: Slots) -> list[int]:
        replicas = self.replicas(held)
        return [sum(self.weight[e] // replicas[e] for e in slots if e >= 0) for slots in held]

    def transfers(self, held: Slots) -> int:
        return sum(not self.was[g, e] for g, slots in enumerate(held) for e in slots if e >= 0)

    def least_shift(self, largest: int) -> int:
        shift, most = 0, max(largest - self.level, 0)
        while most >> shift and most >> shift >= int(np.sqrt(2.0**60 / len(self.node))):
            shift += 1
        return shift

    def potential(self, held: Slots) -> int:
        return sum((max(0, load - self.level) >> self.shift) ** 2 for load in self.loads(held))

    def score(self, held: Slots, after: Slots) -> int:
        cost = self.transfers(after) - self.transfers(held)
        return (self.potential(held) - self.potential(after)) * {2: 1, 1: 2}.get(cost, 4)

    def steps(self, held: Slots) -> Iterator[Slots]:
        """Yield what every allowed step leads to, in the order in which ties are broken."""
        load, replicas = self.loads(held), self.replicas(held)
        h = load.index(max(load))
        others = [g for g in range(len(held)) if g != h and self.node[g] == self.node[h]]
        if load[h] <= self.level:
            return
        for g in others:
            for j, b in enumerate(held[g]):
                for a in held[h]:
                    if a >= 0 and a not in held[g] and b != GONE and (b == EMPTY or replicas[b] > 1):
                        yield from self.if_lighter(held, [(g, j, a)], load[h])
        for i, b in enumerate(held[h]):
            for a in range(len(self.weight)):
                if b >= 0 and replicas[b] > 1 and a not in held[h] and self.home[a] == self.node[h]:
                    yield from self.if_lighter(held, [(h, i, a)], load[h])
        for g in others:
            for j, v in enumerate(held[g]):
                for i, u in enumerate(held[h]):
                    if u >= 0 and u not in held[g] and v != GONE and (v == EMPTY or v not in held[h]):
                        yield from self.if_lighter(held, [(h, i, v), (g, j, u)], load[h])

    def if_lighter(self, held: Slots, puts: list[tuple[int, int, int]], most: int) -> Iterator[Slots]:
        """Yield the slots after ``puts`` if the ranks they touch, or that hold what they replace, stay below most."""
        after = [list(slots) for slots in held]
        for g, j, e in puts:
            after[g][j] = e
        touched = {g for g, _, _ in puts}
        if len(puts) == 1:  # the others that hold b have more to carry
            g, j, _ = puts[0]
            touched |= {r for r, slots in enumerate(after) if held[g][j] >= 0 and held[g][j] in slots}
        load = self.loads(after)
        if all(load[g] < most for g in touched):
            yield after
