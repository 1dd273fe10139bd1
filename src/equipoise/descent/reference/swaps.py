"""Exchanges between the heaviest rank and another, of one replica for one or two for two."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from equipoise.descent.facts import PAIRS, REDEALT, SWAPS
from equipoise.descent.reference.layer import Layer, Part
from equipoise.descent.reference.line import level
from equipoise.descent.reference.redeal import redeal

__all__ = ["improve"]

MANY = 128  # ranks; with so many, or three slots a rank, dealing again comes first
MOST_PAIRED = 256  # slots of a rank; with more, pairs are not exchanged


def improve(layer: Layer, target: int, cutoff: int) -> None:
    """Level the ranks until none is above the target or nothing helps the heaviest; cheap means come first.

    Gives up once neither swaps nor pairs bring the heaviest rank below ``cutoff``.
    """
    facts, slots = layer.facts, layer.slots
    if (slots == 3 or layer.num_ranks >= MANY) and not layer.skips(REDEALT):
        redeal(layer, target)
    while True:
        if slots > 3:
            descend(layer, target)
        if layer.busiest() <= target or not layer.goes_on():
            return
        if 3 < slots <= MOST_PAIRED and not layer.skips(PAIRS) and exchange(layer, target, 2):
            facts[PAIRS] += 1
            continue
        if slots > 3 and layer.busiest() >= cutoff:
            return
        if level(layer, target, cutoff) == 0:
            return


def descend(layer: Layer, target: int) -> None:
    """Swap replicas of the heaviest rank as long as that helps and it is above ``target``."""
    while layer.busiest() > target and layer.goes_on() and exchange(layer, target, 1):
        layer.facts[SWAPS] += 1


def exchange(layer: Layer, target: int, size: int) -> bool:
    """Exchange one replica of the heaviest rank, or two, for as many of another's; return whether that could be.

    Of all such exchanges, that which leaves the heavier of both ranks lightest. The lightest ranks are looked at first,
    and none where even half of the difference would not be better, nor any once the target is reached: of pairs the
    best that one rank offers is taken, of single replicas the first.
    """
    *others, g = layer.order()
    mine = layer.parts(g, size)
    top = best = layer.load[g]
    found = None
    for h in others:
        bottom = layer.load[h]
        if best <= target or best <= bottom + (top - bottom + 1) // 2:
            break
        if size == 1:
            layer.spend(6 * len(mine))
        elif not layer.goes_on((20 if layer.slots <= 16 else 45) * len(mine)):
            break
        for d, u, v in _near_half(mine, layer.parts(h, size), top - bottom):
            heavier = max(top - d, bottom + d)
            if d > 0 and heavier < best and layer.may_exchange(g, u, h, v):
                best, found = heavier, (g, u, h, v)
                if best <= target and size == 1:
                    break
    if found is not None:
        layer.exchange(*found)
    return found is not None


def _near_half(
    mine: list[tuple[int, Part]], theirs: list[tuple[int, Part]], difference: int
) -> Iterator[tuple[int, Part, Part]]:
    """Yield what an exchange moves, and both parts: for each of mine the two of theirs that come nearest to half."""
    loads = [v for v, _ in theirs]
    for u, part in mine:
        j = bisect_left(loads, u - difference // 2)
        for k in (j, j - 1):
            if 0 <= k < len(theirs):
                yield u - loads[k], part, theirs[k][1]
