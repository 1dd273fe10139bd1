"""The published planner for node-limited routing, from its description alone, one layer at a time.

Groups go to nodes, spare slots to the largest replica on the node, replicas to ranks; the heaviest first, to the
lightest that has room, ties to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def pack(weights: Sequence[Fraction], packs: int) -> list[list[int]]:
    """Return the items of each pack, in the order in which they came."""
    room = len(weights) // packs
    if room == 1:
        return [[item] for item in range(packs)]
    held: list[list[int]] = [[] for _ in range(packs)]
    for item in sorted(range(len(weights)), key=lambda item: -weights[item]):
        free = [pack for pack in range(packs) if len(held[pack]) < room]
        held[min(free, key=lambda pack: sum(weights[item] for item in held[pack]))].append(item)
    return held


def busiest_rank(load: Sequence[int], ranks: int, slots_per_rank: int, nodes: int, groups: int) -> Fraction:
    """Return what the busiest rank carries."""
    size = len(load) // groups
    of_group = [Fraction(sum(load[group * size : (group + 1) * size])) for group in range(groups)]
    busiest = Fraction(0)
    for held in pack(of_group, nodes):
        experts = [expert for group in held for expert in range(group * size, (group + 1) * size)]
        count = dict.fromkeys(experts, 1)
        replicas = list(experts)
        while len(replicas) < ranks // nodes * slots_per_rank:
            hottest = max(experts, key=lambda expert: Fraction(load[expert], count[expert]))
            count[hottest] += 1
            replicas.append(hottest)
        weights = [Fraction(load[expert], count[expert]) for expert in replicas]
        busiest = max(busiest, *(sum(weights[item] for item in rank) for rank in pack(weights, ranks // nodes)))
    return busiest
