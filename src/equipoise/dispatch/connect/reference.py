"""Swaps that connect ranks and lose no balance, in plain Python, readable as the specification."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.connect import CUTS, GAP, POURS
from equipoise.dispatch.waterfill.reference import pour

__all__ = ["connect"]


def connect(
    physical_to_logical: NDArray[np.int32],
    load: NDArray[np.float64],
    factors: NDArray[np.float64],
    limit: NDArray[np.float64],
    most: NDArray[np.int64],
    num_ranks: int,
    ranks_per_node: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the slots of each layer after the swaps, and their number; see the folder's contract."""
    layers = []
    for slots, tokens, high, swaps in zip(physical_to_logical.tolist(), load, limit, most, strict=True):
        layer = Layer(slots, tokens.tolist(), num_ranks, ranks_per_node, float(high), int(swaps))
        layer.join()
        if layer.num_components() < num_ranks and tokens.max() > 0:
            layer.widen([[t * f for t, f in zip(layer.tokens, row, strict=True)] for row in factors.tolist()])
            layer.join()
        layers.append(layer)
    table = np.array([layer.slots for layer in layers], np.int32)
    return table, np.array([layer.swaps for layer in layers], np.int64)


@dataclass
class Layer:
    """The slots of one layer while they are swapped."""

    slots: list[int]
    tokens: list[float]
    num_ranks: int
    ranks_per_node: int
    limit: float
    most: int
    swaps: int = 0
    carried: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.width = len(self.slots) // self.num_ranks
        self.count = [self.slots.count(e) for e in range(len(self.tokens))]
        self.each = [t / c if c else 0.0 for t, c in zip(self.tokens, self.count, strict=True)]
        self.carried = [0.0] * self.num_ranks
        for slot, e in enumerate(self.slots):
            if e >= 0:
                self.carried[slot // self.width] += self.each[e]

    def held(self, rank: int) -> list[int]:
        """Return what the slots of a rank hold."""
        return self.slots[rank * self.width : (rank + 1) * self.width]

    def components(self) -> list[int]:
        """Return the component of each rank, named by its lowest rank."""
        label = list(range(self.num_ranks))
        for e in range(len(self.tokens)):
            joined = {label[rank] for rank in range(self.num_ranks) if e in self.held(rank)}
            label = [min(joined) if name in joined else name for name in label]
        return label

    def num_components(self) -> int:
        """Return how many sets of ranks share no expert with another."""
        return len(set(self.components()))

    def may_swap(self, s: int, t: int) -> bool:
        """Whether two slots may change what they hold: no rank above the limit, no expert twice, all on one node."""
        a, b, here, there = self.slots[s], self.slots[t], s // self.width, t // self.width
        if self.swaps >= self.most or here == there or a == b or min(a, b) < 0:
            return False
        if here // self.ranks_per_node != there // self.ranks_per_node:
            return False
        more = self.each[a] - self.each[b]
        if self.carried[here] - more > self.limit or self.carried[there] + more > self.limit:
            return False
        return a not in self.held(there) and b not in self.held(here)

    def swap(self, s: int, t: int, step: int) -> None:
        """Exchange what two slots hold; ``step`` 1 makes a swap, -1 takes it back."""
        more = self.each[self.slots[s]] - self.each[self.slots[t]]
        self.carried[s // self.width] -= more
        self.carried[t // self.width] += more
        self.slots[s], self.slots[t] = self.slots[t], self.slots[s]
        self.swaps += step

    def join(self) -> None:
        """Swap a replica into another component wherever that leaves fewer of them."""
        joined = True
        while joined:
            joined = False
            for s in range(len(self.slots)):
                for t in range(len(self.slots)):
                    before = self.components()
                    if self.slots[s] < 0 or self.count[self.slots[s]] < 2:
                        continue
                    if before[s // self.width] == before[t // self.width] or not self.may_swap(s, t):
                        continue
                    self.swap(s, t, 1)
                    if self.num_components() < len(set(before)):
                        joined = True
                    else:
                        self.swap(s, t, -1)

    def widen(self, scenarios: list[list[float]]) -> None:
        """Swap replicas wherever that leaves the busiest ranks of all scenarios together less."""
        cuts = [[Cut(set(range(self.num_ranks)), tokens, self) for _ in range(CUTS)] for tokens in scenarios]
        best, _ = self.pour_all(cuts, scenarios, np.inf)
        number, left, quiet, pair = self.num_components(), POURS, 0, 0
        while quiet < len(self.slots) ** 2 and left > 0:
            s, t = divmod(pair, len(self.slots))
            pair = (pair + 1) % len(self.slots) ** 2
            quiet += 1
            if self.slots[s] < 0 or self.count[self.slots[s]] < 2 or not self.may_swap(s, t):
                continue
            ask = best * (1.0 - GAP)
            if sum(max(cut.after(self, s, t) / len(cut.ranks) for cut in own) for own in cuts) >= ask:
                continue
            for cut in (cut for own in cuts for cut in own):
                cut.total = cut.after(self, s, t)
            self.swap(s, t, 1)
            whole = np.inf
            if self.num_components() <= number:
                whole, poured = self.pour_all(cuts, scenarios, ask)
                left -= poured
            if whole < ask:
                best, quiet, number = whole, 0, self.num_components()
            else:
                for cut in (cut for own in cuts for cut in own):
                    cut.total = cut.after(self, s, t)
                self.swap(s, t, -1)

    def pour_all(self, cuts: list[list[Cut]], scenarios: list[list[float]], best: float) -> tuple[float, int]:
        """Return what the busiest ranks of all scenarios carry together, or at least ``best``, and how many it took."""
        known = [max(cut.total / len(cut.ranks) for cut in own) for own in cuts]
        whole = 0.0
        for value in known:
            whole += value
        for k, tokens in enumerate(scenarios):
            _, tight = pour(np.array([self.slots]), np.array([tokens]), self.num_ranks, GAP)
            cut = Cut(set(np.flatnonzero(tight[0]).tolist()), tokens, self)
            cuts[k] = [*cuts[k][1:], cut]
            whole += max(cut.total / len(cut.ranks) - known[k], 0.0)
            if whole >= best:
                return whole, k + 1
        return whole, len(scenarios)


class Cut:
    """A set of ranks, and what must be carried among them in one scenario."""

    def __init__(self, ranks: set[int], tokens: list[float], layer: Layer) -> None:
        self.ranks, self.tokens, self.total = ranks, tokens, 0.0
        for e in range(len(tokens)):
            if layer.count[e] and not self.outside(layer, e):
                self.total += tokens[e]

    def outside(self, layer: Layer, e: int) -> int:
        """Return how many replicas of an expert are on other ranks."""
        return sum(layer.held(rank).count(e) for rank in range(layer.num_ranks) if rank not in self.ranks)

    def after(self, layer: Layer, s: int, t: int) -> float:
        """Return what must be carried once two slots have changed what they hold."""
        now, (a, b) = self.total, (layer.slots[s], layer.slots[t])
        here, there = s // layer.width in self.ranks, t // layer.width in self.ranks
        if here and not there:
            now -= self.tokens[a] if self.outside(layer, a) == 0 else 0.0
            now += self.tokens[b] if self.outside(layer, b) == 1 else 0.0
        elif there and not here:
            now += self.tokens[a] if self.outside(layer, a) == 1 else 0.0
            now -= self.tokens[b] if self.outside(layer, b) == 0 else 0.0
        return now
