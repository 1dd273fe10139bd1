"""Few slots: try all replica counts and all ways to place them, as far as a limit on the steps allows."""

from __future__ import annotations

from equipoise.descent.facts import EXACT, MOST, REACHED, STEPS, TARGET
from equipoise.descent.reference.layer import Held, Layer, replica_cost

__all__ = ["search_all"]

STEP = 75  # what one count or one rank that is tried counts


def search_all(layer: Layer, steps: int) -> None:
    """Try all counts and all placements until the best meets the target, or ``steps`` were made."""
    facts = layer.facts
    steps = max(min(steps, (facts[MOST] - facts[STEPS]) // STEP), 0)
    tree = _Tree(layer, facts[REACHED], steps)
    tree.count([], layer.num_ranks * layer.slots)
    layer.spend(STEP * (steps - tree.left))
    facts[EXACT] += tree.limit < facts[REACHED]
    facts[REACHED] = tree.limit


class _Tree:
    """Depth first; ``limit``, what the busiest rank must stay below, and ``left``, the steps that may be made."""

    def __init__(self, layer: Layer, limit: int, left: int) -> None:
        self.layer, self.limit, self.left = layer, limit, left

    def step(self) -> bool:
        """Count a step; return whether it may be made."""
        if self.left <= 0 or self.limit <= self.layer.facts[TARGET]:
            return False
        self.left -= 1
        return True

    def count(self, replicas: list[int], left: int) -> None:
        """Try all counts of the next expert; ``left`` slots are for it and those after it."""
        weight, ranks = self.layer.weight, self.layer.num_ranks
        load, after, number = weight[len(replicas)], len(weight) - 1 - len(replicas), 0
        while self.step():
            number += 1
            rest = left - number
            if number > ranks or rest < after:
                return
            if replica_cost(load, number) < self.limit and rest <= after * ranks:
                if after == 0:
                    self.place_all([*replicas, number])
                else:
                    self.count([*replicas, number], rest)

    def place_all(self, replicas: list[int]) -> None:
        """Try all placements of these counts, the largest replicas first."""
        each = [replica_cost(load, count) for load, count in zip(self.layer.weight, replicas, strict=True)]
        experts = sorted(range(len(each)), key=lambda e: -each[e])
        least = each[experts[0]] + sum(each[e] for e in experts[1:][::-1][: self.layer.slots - 1])
        if least < self.limit:  # the rank of the largest, with one replica of each of the lightest
            items = [(e, each[e], behind) for e in experts for behind in reversed(range(replicas[e]))]
            self.place(items, [[] for _ in range(self.layer.num_ranks)], [0] * self.layer.num_ranks, 0)

    def place(self, items: list[tuple[int, int, int]], held: Held, load: list[int], first: int) -> None:
        """Try all ranks from ``first`` on for the first of ``items``: expert, load, how many of its kind come behind.

        A rank is left out where one just like it comes before, without the expert: that would have done as well.
        """
        (e, each, behind), *others = items
        next_rank = first
        while self.step():
            for g in range(next_rank, len(held) - behind):
                if len(held[g]) == self.layer.slots or load[g] + each >= self.limit:
                    continue
                alike = (h for h in range(g) if load[h] == load[g] and len(held[h]) == len(held[g]))
                if all(e in held[h] for h in alike):
                    break
            else:
                return
            next_rank = g + 1
            held[g].append(e)
            load[g] += each
            if others:
                self.place(others, held, load, next_rank if behind else 0)
            else:
                self.limit = max(load)
                self.layer.best = [list(rank) for rank in held]
            held[g].pop()
            load[g] -= each
