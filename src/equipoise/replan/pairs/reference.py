"""Levelling rank by rank in plain Python, readable as the specification: every step is tried out in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.replan.pairs import MAX

__all__ = ["exchange"]

Slots = list[list[int]]  # [rank][slot]


def exchange(
    held: NDArray[np.int32], weight: NDArray[np.int64], node: NDArray[np.int32], target: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Level the ranks of each layer; see the folder's contract."""
    busiest = np.empty(len(held), dtype=np.int64)
    for row in range(len(held)):
        layer = _Layer(weight[row].tolist(), node.tolist(), int(target[row]))
        held[row], busiest[row] = layer.level(held[row].tolist())
    return busiest


class _Layer:
    """One layer, and what its ranks carry with any slots."""

    def __init__(self, weight: list[int], node: list[int], target: int) -> None:
        self.weight, self.node, self.target = weight, node, target

    def replicas(self, held: Slots) -> list[int]:
        return [sum(slots.count(e) for slots in held) for e in range(len(self.weight))]

    def loads(self, held: Slots) -> list[int]:
        replicas = self.replicas(held)
        return [sum(self.weight[e] // replicas[e] for e in slots if e >= 0) for slots in held]

    def level(self, held: Slots) -> tuple[Slots, int]:
        """Return the slots after the last step, and the busiest rank."""
        if any(slots.count(e) > 1 for slots in held for e in slots if e >= 0):
            return held, MAX
        for _ in range(len(held) * len(held[0])):
            now = self.loads(held)
            top = max(now)
            h = now.index(top)
            if top <= self.target:
                break
            peak, after = self.best_exchange(held, h, now)
            if peak - self.target > (top - self.target) // 2:
                peak, after = self.best_lend(held, h, now, (peak, after))
            if peak == top:
                break
            held = after
        return held, max(self.loads(held))

    def best_exchange(self, held: Slots, h: int, now: list[int]) -> tuple[int, Slots]:
        """Return what the best exchange with rank ``h`` leaves to the busier of both, and the slots after it."""
        best: tuple[int, Any] = now[h], held
        lightest = min((g for g in range(len(held)) if self.node[g] == self.node[h]), key=lambda g: now[g])
        for g in [lightest, *(g for g in range(len(held)) if g != lightest)]:
            if g == h or self.node[g] != self.node[h] or now[g] >= self.target:
                continue
            for j, v in enumerate(held[g]):
                for i, u in enumerate(held[h]):
                    if min(u, v) < 0 or u in held[g] or v in held[h]:
                        continue
                    after = put(held, (h, i, v), (g, j, u))
                    loads = self.loads(after)
                    best = min(best, (max(loads[h], loads[g]), after), key=lambda found: found[0])
            if best[0] <= self.target:
                break
        return best

    def best_lend(self, held: Slots, h: int, now: list[int], best: tuple[int, Slots]) -> tuple[int, Slots]:
        """Return the same of the best lend of an expert of rank ``h``, or ``best`` where none leaves less."""
        for g, i, j in self.lends(held, h):
            a, b = held[h][i], held[g][j]
            after = put(held, (g, j, a))
            loads = self.loads(after)
            replicas = self.replicas(held)
            rise = self.weight[b] // (replicas[b] - 1) - self.weight[b] // replicas[b]
            others = [now[r] + rise for r, slots in enumerate(held) if b in slots and r != g]
            best = min(best, (max(loads[h], loads[g], *others), after), key=lambda found: found[0])
        return best

    def lends(self, held: Slots, h: int) -> Iterator[tuple[int, int, int]]:
        """Yield what may be lent: to which rank, from which slot of ``h``, and in which slot there."""
        replicas = self.replicas(held)
        for g in range(len(held)):
            if g == h or self.node[g] != self.node[h]:
                continue
            for j, b in enumerate(held[g]):
                for i, a in enumerate(held[h]):
                    if min(a, b) >= 0 and replicas[b] > 1 and a not in held[g] and b not in held[h]:
                        yield g, i, j


def put(held: Slots, *puts: tuple[int, int, int]) -> Slots:
    """Return the slots with experts put into some of them."""
    after = [list(slots) for slots in held]
    for g, j, e in puts:
        after[g][j] = e
    return after
