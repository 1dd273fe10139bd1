"""Replica counts that a descent starts from."""

from __future__ import annotations

import math
from collections.abc import Callable

from equipoise.descent.facts import BOUND, FLOOR, LARGEST, TARGET
from equipoise.descent.reference.layer import Layer
from equipoise.descent.tuning import SPREAD_COLDEST, SPREAD_FITTING, SPREAD_HALVES

__all__ = ["count_least_largest", "count_relaxed", "set_target"]

Worth = Callable[[int, int], float]
"""What an expert of some load with some replicas gets from one slot more."""


def set_target(layer: Layer, max_gap: float) -> None:
    """Set the best counts, and t*, the lower bound, and the busiest rank that is near enough to it."""
    facts = layer.facts
    layer.set_counts(count_least_largest(layer.weight, layer.num_ranks, layer.slots))
    facts[LARGEST] = max(-(-load // count) for load, count in zip(layer.weight, layer.replicas, strict=True))
    facts[BOUND] = max(-(-sum(layer.weight) // layer.num_ranks), facts[LARGEST], facts[FLOOR])
    facts[TARGET] = int(facts[BOUND] * (1.0 + max_gap * (1.0 - 1e-9)))


def count_least_largest(weight: list[int], num_ranks: int, slots: int) -> list[int]:
    """Return the counts whose largest replica is least (d'Hondt's): slots go to the largest replica, one by one.

    Without any load, slots are spread evenly.
    """
    experts, num_slots = len(weight), num_ranks * slots
    if weight[0] == 0:
        return [num_slots // experts + (e < num_slots % experts) for e in range(experts)]
    replicas = [1] * experts
    _give(weight, num_slots - experts, num_ranks, replicas, _size)
    return replicas


def _give(weight: list[int], left: int, most: int, replicas: list[int], worth: Worth) -> None:
    """Give ``left`` slots, one by one, to whom one is worth most; to the first expert where all have ``most``."""
    for _ in range(left):
        takers = [e for e in range(len(weight)) if replicas[e] < most]
        replicas[max(takers, key=lambda e: (worth(weight[e], replicas[e]), -e), default=0)] += 1


def _size(load: int, count: int) -> float:
    """Return the size of one of ``count`` replicas."""
    return load / count


def _saved(load: int, count: int) -> float:
    """Return by how much one slot more makes the replicas of an expert smaller."""
    return load / (count * (count + 1.0))


def count_relaxed(layer: Layer, largest: float, target: int, rule: int) -> list[int]:
    """Return counts for which no replica exceeds ``largest``; what is left is spent by ``rule``, one of SPREAD_*."""
    weight, most, experts = layer.weight, layer.num_ranks, range(len(layer.weight))
    replicas = [max(1, min(math.ceil(weight[e] / largest), most)) for e in experts]
    left = layer.num_ranks * layer.slots - sum(replicas)
    if rule == SPREAD_HALVES:
        _give(weight, left, most, replicas, _saved)
        return replicas
    second = [e for e in experts if replicas[e] == 1 and most > 1]
    if rule == SPREAD_COLDEST:
        second.reverse()
    if rule == SPREAD_FITTING:
        heaviest = max(weight[e] / replicas[e] for e in experts)
        second = [e for e in second if weight[e] <= 2 * (target - heaviest)]
    for e in second[: max(left, 0)]:
        replicas[e] = 2
        left -= 1
    _give(weight, left, most, replicas, _size)
    return replicas
