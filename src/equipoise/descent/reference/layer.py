"""One layer while the reference plans it: its ranks, what is known of it, the work spent on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from equipoise.descent.facts import MOST, REACHED, SKIPPED, STEPS
from equipoise.kernels.separate import reference

__all__ = ["Held", "Layer", "Part", "replica_cost"]

Held = list[list[int]]
"""The experts on each rank."""
Part = tuple[int, ...]
"""One place of a rank, or two: what is exchanged at once."""


def replica_cost(load: int, count: int) -> int:
    """Return what one of ``count`` replicas of an expert costs the rank that holds it: an even share of its load."""
    return load // count


@dataclass
class Layer:
    """One layer while it is planned. Experts are numbered by descending load, equal ones by name.

    ``weight``, the loads of the experts; ``facts`` and ``stop``, see the folder's contract. ``held``, the placement
    that is being improved, the replicas of each rank ascending by load; ``load``, what each rank carries;
    ``replicas``, the counts, and ``each``, the load of one replica of each expert; ``best``, the best placement so far.
    """

    weight: list[int]
    num_ranks: int
    slots: int
    facts: list[int]
    stop: NDArray[np.bool_]
    held: Held = field(default_factory=list)
    load: list[int] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)
    each: list[int] = field(default_factory=list)
    best: Held = field(default_factory=list)

    def set_counts(self, replicas: list[int]) -> None:
        """Set the counts; whoever calls this places them next."""
        self.replicas = replicas
        self.each = [replica_cost(load, count) for load, count in zip(self.weight, replicas, strict=True)]

    def place(self, held: Held) -> None:
        """Set the placement; ranks that are not in order are sorted, those of equal load stay as they are."""
        self.held = [sorted(rank, key=lambda e: self.each[e]) for rank in held]
        self.load = [sum(self.each[e] for e in rank) for rank in held]

    def restore(self, held: Held) -> None:
        """Go back to a placement and its counts."""
        everyone = [e for rank in held for e in rank]
        self.set_counts([everyone.count(e) for e in range(len(self.weight))])
        self.place(held)

    def apart(self, held: Held) -> Held:
        """Return the placement with experts that share a rank with themselves moved apart."""
        table = np.array(held, np.int32)
        reference.separate(table, np.array(self.weight, np.int64))
        moved: Held = table.tolist()
        return moved

    def order(self) -> list[int]:
        """Return the ranks by load, those of equal load by number."""
        return sorted(range(self.num_ranks), key=lambda g: (self.load[g], g))

    def busiest(self) -> int:
        """Return the load of the busiest rank now."""
        return max(self.load)

    def keep(self) -> bool:
        """Keep the placement if it is better than the best so far; return whether it was."""
        better = self.busiest() < self.facts[REACHED]
        if better:
            self.facts[REACHED] = self.busiest()
            self.best = [list(rank) for rank in self.held]
        return better

    def spend(self, steps: int) -> None:
        """Count work."""
        self.facts[STEPS] += steps

    def goes_on(self, steps: int = 0) -> bool:
        """Count work, and one step for asking; return whether more may be spent."""
        facts = self.facts
        facts[STEPS] += steps + 1
        if self.stop[0]:
            facts[MOST] = min(facts[MOST], facts[STEPS])
        return facts[STEPS] < facts[MOST]

    def skips(self, stage: int) -> bool:
        """Whether this stage is to be left out."""
        return bool(self.facts[SKIPPED] >> stage & 1)

    def parts(self, g: int, size: int) -> list[tuple[int, Part]]:
        """Return the load and the places of every replica of rank ``g``, or of every pair, ascending."""
        value = [self.each[e] for e in self.held[g]]
        if size == 1:
            return [(v, (i,)) for i, v in enumerate(value)]
        return sorted((value[i] + value[j], (i, j)) for j in range(self.slots) for i in range(j))

    def may_exchange(self, g: int, u: Part, h: int, v: Part) -> bool:
        """Whether ranks ``g`` and ``h`` may exchange these, so that no rank gets an expert that it holds."""
        mine, theirs = self.held[g], self.held[h]
        return all(mine[i] not in theirs for i in u) and all(theirs[j] not in mine for j in v)

    def exchange(self, g: int, u: Part, h: int, v: Part) -> None:
        """Exchange the replicas at places ``u`` of rank ``g`` and at places ``v`` of rank ``h``."""
        mine, theirs = self.held[g], self.held[h]
        for i, j in zip(u, v, strict=True):
            mine[i], theirs[j] = theirs[j], mine[i]
        for rank in (g, h):
            self.held[rank].sort(key=lambda e: self.each[e])
            self.load[rank] = sum(self.each[e] for e in self.held[rank])
