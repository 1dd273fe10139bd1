"""Chains of steps, for where none pays by itself: the hottest experts are split, and others make room."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import inlined, internal
from equipoise.robust.steps.finding import best_step, note_both, note_ease
from equipoise.robust.steps.layer import BEST, TRIED
from equipoise.robust.steps.making import make, note_step, unmake
from equipoise.robust.steps.rules import DEPTH, EMPTY, HALF, HOT, HOTTEST, LEAST_GAIN, LEFT, NOBODY

__all__ = ["best_chain"]

FIRST = np.int64(0)


@internal
def best_chain(layer, objective, level):
    """Note the chain that gains most for its transfers, if that is enough; return its steps, maybe none, and cost."""
    best, best_cost, best_number = LEAST_GAIN * np.float64(max(objective - level, 1)), np.int64(0), 0
    hot = HOT * HOT * np.float64(level) / len(layer.held)
    hottest = NOBODY
    for _ in range(min(HOTTEST, len(layer.each))):
        hottest = _next_hottest(layer, hottest)
        if layer.square_of[hottest] * layer.each[hottest] * layer.each[hottest] < hot:
            break
        g, i = _least_taken(layer, hottest)
        a = np.int64(hottest)
        h = j = NOBODY
        number, total, worth = FIRST, np.int64(0), 1.0
        layer.split[0] = hottest
        while g >= 0 and worth > 0.0:
            total += note_step(layer, TRIED, number, a, g, i, h, j)
            make(layer, TRIED, number)
            number += 1
            gains = np.float64(objective - layer.square.sum()) / max(np.float64(total), HALF)
            if total >= LEFT and gains > best:
                best, best_cost, best_number = gains, total, number
                for step in range(number):
                    for k in range(layer.chain.shape[2]):
                        layer.chain[BEST, step, k] = layer.chain[TRIED, step, k]
            if number > DEPTH:
                break
            worth, a, g, i, h, j = best_step(layer)
        for step in range(number - 1, -1, -1):
            unmake(layer, TRIED, step)
    layer.split[0] = NOBODY
    return best_number, best_cost


@inlined
def _next_hottest(layer, last):
    """Return the expert whose replicas carry most after those of ``last``, or most of all; ties to the lowest."""
    found, most, bound = NOBODY, -1.0, np.inf
    if last >= 0:
        bound = layer.square_of[last] * layer.each[last] * layer.each[last]
    for e in range(len(layer.each)):
        own = layer.square_of[e] * layer.each[e] * layer.each[e]
        if own > most and (own < bound or (own == bound and e > last)):
            found, most = e, own
    return found


@inlined
def _least_taken(layer, a):
    """Return the rank and slot that ``a`` takes with the largest gain, maybe below zero; -1 where there is none."""
    best, best_g, best_i = -np.inf, -1, -1
    note_ease(layer)
    for g in range(len(layer.held)):
        if layer.times[g, a] > 0 or layer.home[a] != layer.node[g]:
            continue
        for i in range(layer.held.shape[1]):
            b = np.int64(layer.held[g, i])
            if b < EMPTY or (b >= 0 and layer.replicas[b] < 2):
                continue
            freed = note_both(layer, g, b, 1.0)
            other, each = max(b, 0), layer.each[b] if b >= 0 else 0.0
            shared = each * layer.product[other, a] - layer.along[g, a]
            gain = layer.ease[a] + freed + 2.0 * layer.more[a] * shared + layer.both[a]
            if gain > best:
                best, best_g, best_i = gain, g, i
            note_both(layer, g, b, 0.0)
    return best_g, best_i
