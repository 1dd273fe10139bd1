"""Replica counts that a descent starts from."""

from __future__ import annotations

import numpy as np

from equipoise.descent.facts import BOUND, FLOOR, LARGEST, TARGET
from equipoise.descent.tuning import SPREAD_COLDEST, SPREAD_FITTING, SPREAD_HALVES
from equipoise.kernels.native import internal

__all__ = ["count_least_largest", "count_relaxed", "set_target", "total_load"]


@internal
def set_target(layer, max_gap):
    """Set the best counts, and t*, the lower bound, and the busiest rank that is near enough to it."""
    weight, facts = layer.weight, layer.facts
    num_ranks, slots = layer.best.shape
    facts[LARGEST] = count_least_largest(weight, num_ranks * slots, num_ranks, layer.ranks.replicas)
    facts[BOUND] = max(-(-total_load(weight) // num_ranks), facts[LARGEST], facts[FLOOR])
    facts[TARGET] = np.int64(facts[BOUND] * (1.0 + max_gap * (1.0 - 1e-9)))  # rounding cannot lift the gap above it


@internal
def total_load(loads):
    """Return the sum of loads, of experts or of ranks."""
    total = np.int64(0)
    for load in loads:
        total += load
    return total


@internal
def count_least_largest(weight, num_slots, most, replicas):
    """Set ``replicas`` so that the largest replica is least, and return its size rounded up (t*): d'Hondt's counts.

    ``weight`` descends. Bisect on the size until at most three slots are left over, then give those to
    the largest replicas: the same counts as giving out all slots one by one.
    """
    experts = len(weight)
    if weight[0] == 0:
        _spread_evenly(num_slots, replicas)
        return np.int64(0)
    low, high = total_load(weight) / num_slots * (1.0 - 1e-9), np.float64(weight[0])
    for _ in range(60):
        middle = 0.5 * (low + high)
        need = experts
        for e in range(experts):
            if weight[e] <= middle:
                break
            need += min(np.int64(np.ceil(weight[e] / middle)), most) - 1
        if need <= num_slots:
            high = middle
            if num_slots - need <= 3:
                break
        else:
            low = middle
    left = num_slots - experts
    replicas[:] = 1
    for e in range(experts):
        if weight[e] <= high:
            break
        replicas[e] = max(1, min(np.int64(np.ceil(weight[e] / high)), most))
        left -= replicas[e] - 1
    _give_to_largest(weight, left, most, replicas)
    largest = np.int64(0)
    for e in range(experts):
        largest = max(largest, -(-weight[e] // replicas[e]))
        if replicas[e] == 1:
            break  # whoever follows is no larger
    return largest


@internal
def _spread_evenly(num_slots, replicas):
    experts = len(replicas)
    for e in range(experts):
        replicas[e] = num_slots // experts + (e < num_slots % experts)


@internal
def _give_to_largest(weight, left, most, replicas):
    """Give ``left`` slots, one by one, to the expert with the largest replicas."""
    while left > 0:
        top, at = -1.0, 0
        for e in range(len(weight)):
            each = weight[e] / replicas[e] if replicas[e] < most else -1.0
            if each > top:
                top, at = each, e
            if replicas[e] == 1:
                break  # whoever follows is no larger
        replicas[at] += 1
        left -= 1


@internal
def count_relaxed(layer, largest, target, rule):
    """Set the counts so that no replica exceeds ``largest``, and spend what is left by ``rule``, one of SPREAD_*."""
    weight, replicas = layer.weight, layer.ranks.replicas
    most = layer.best.shape[0]
    experts = len(weight)
    left, heaviest = layer.best.size, 0.0
    for e in range(experts):
        replicas[e] = max(1, min(np.int64(np.ceil(weight[e] / largest)), most))
        left -= replicas[e]
        heaviest = max(heaviest, weight[e] / replicas[e])
    if rule == SPREAD_HALVES:
        while left > 0:
            top, at = -1.0, 0
            for e in range(experts):
                less = weight[e] / (replicas[e] * (replicas[e] + 1.0)) if replicas[e] < most else -1.0
                if less > top:
                    top, at = less, e
            replicas[at] += 1
            left -= 1
    else:
        for i in range(experts):
            e = experts - 1 - i if rule == SPREAD_COLDEST else i
            if rule == SPREAD_FITTING and weight[e] > 2 * (target - heaviest):
                continue
            if left > 0 and replicas[e] == 1 and most > 1:
                replicas[e] = 2
                left -= 1
    _give_to_largest(weight, left, most, replicas)
