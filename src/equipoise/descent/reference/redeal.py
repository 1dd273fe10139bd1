"""Take one replica from every rank and deal them again: many swaps at once, for a start that is far from level."""

from __future__ import annotations

from equipoise.descent.facts import NEVER, REDEALT
from equipoise.descent.reference.layer import Held, Layer

__all__ = ["redeal"]

ROUNDS = 9
MIXED = 3  # rounds to begin with that take different places from neighbouring ranks
IDLE = 3  # rounds in a row that do not lower the heaviest rank
ENOUGH = 3  # above the target, in mean room below it


def redeal(layer: Layer, target: int) -> None:
    """Take one replica from every rank and deal them again, the largest to the rank with least left, and so on.

    At most ``ROUNDS`` times; the heaviest rank is never heavier for it. Replicas stay where they are put on a rank
    until the end.
    """
    ranks, slots = range(layer.num_ranks), layer.slots
    heaviest = layer.busiest()
    enough = target + ENOUGH * (target - sum(layer.load) // layer.num_ranks)
    number = idle = 0
    while heaviest > enough and number < ROUNDS and idle < IDLE and layer.goes_on(layer.num_ranks * (slots + 20)):
        if number < MIXED:
            places = [(number + g) % slots for g in ranks]
        elif number % 2 == 0:
            places = [(number // 2 + (g >> number % 4)) % slots for g in ranks]
        else:
            places = [number // 2 % slots for g in ranks]
        after = _deal_one(layer, places, heaviest)
        idle = 0 if after < heaviest else idle + 1
        layer.facts[REDEALT] += after < heaviest
        heaviest = after
        number += 1
    layer.place(layer.held)


def _deal_one(layer: Layer, places: list[int], heaviest: int) -> int:
    """Deal again what lies at these places, unless no rank gets lighter than ``heaviest``; return the heaviest rank."""
    each, ranks = layer.each, range(layer.num_ranks)
    taken = [layer.held[g][places[g]] for g in ranks]
    left = [layer.held[g][: places[g]] + layer.held[g][places[g] + 1 :] for g in ranks]
    rest = sorted((layer.load[g] - each[taken[g]], g) for g in ranks)
    dealt = [taken[g] for g in sorted(ranks, key=lambda g: (-each[taken[g]], -g))]
    after = max(load + each[e] for (load, _), e in zip(rest, dealt, strict=True))
    if after < heaviest and any(e in left[g] for (_, g), e in zip(rest, dealt, strict=True)):
        after = _part(rest, left, dealt, each)
    if after >= heaviest:
        return heaviest
    for (load, g), e in zip(rest, dealt, strict=True):
        layer.held[g][places[g]], layer.load[g] = e, load + each[e]
    return after


def _part(rest: list[tuple[int, int]], left: Held, dealt: list[int], each: list[int]) -> int:
    """Let ranks that would get an expert twice change with the nearest that they can, those that come later first.

    Returns the heaviest rank, or NEVER where there is none to change with. A later one may get an expert twice: it is
    mended in its turn.
    """
    after = 0
    for k, (load, g) in enumerate(rest):
        if dealt[k] in left[g]:
            for j in (*range(k + 1, len(rest)), *range(k - 1, -1, -1)):
                other, h = rest[j]
                if dealt[j] not in left[g] and (j > k or dealt[k] not in left[h]):
                    dealt[k], dealt[j] = dealt[j], dealt[k]
                    after = max(after, other + each[dealt[j]] if j < k else 0)
                    break
            else:
                return int(NEVER)
        after = max(after, load + each[dealt[k]])
    return after
