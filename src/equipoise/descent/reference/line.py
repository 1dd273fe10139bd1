"""Swaps and chains of two swaps, searched among all replicas of the layer at once."""

from __future__ import annotations

from equipoise.descent.facts import CHAINS, SWAPS
from equipoise.descent.reference.layer import Held, Layer

__all__ = ["level"]

FIRST = 16  # first swaps of each replica that a chain begins with
FAR = 8  # a rank stuck above the cutoff by one part in so many of what that is above the target is given up


class Line:
    """All replicas, ascending by load, those of one expert side by side: what swaps are searched in.

    ``expert`` and ``owner`` of each replica, those of one expert to begin with by rank; ``first``, where the replicas
    of each expert begin.
    """

    def __init__(self, layer: Layer) -> None:
        owners: Held = [[] for _ in layer.weight]
        for g, rank in enumerate(layer.held):
            for e in rank:
                owners[e].append(g)
        self.expert: list[int] = []
        self.owner: list[int] = []
        self.first: dict[int, int] = {}
        for e in sorted(range(len(owners)), key=lambda e: (layer.each[e], e)):
            self.first[e] = len(self.expert)
            self.expert += [e] * len(owners[e])
            self.owner += owners[e]

    def below(self, e: int) -> range:
        """Return the places of all that stands before expert ``e``, the nearest first."""
        return range(self.first[e] - 1, -1, -1)

    def swap(self, layer: Layer, g: int, i: int, q: int) -> None:
        """Swap what rank ``g`` has at place ``i`` with the replica at ``q`` in line."""
        p, h = self.owner.index(g, self.first[layer.held[g][i]]), self.owner[q]
        layer.exchange(g, (i,), h, (layer.held[h].index(self.expert[q]),))
        self.owner[p], self.owner[q] = h, g


def level(layer: Layer, target: int, cutoff: int) -> int:
    """Swap, and where no swap is left chain swaps, until no rank is above ``target`` or the heaviest is stuck.

    Tries no chains for a heaviest rank of ``cutoff`` or more. Returns how often something was swapped.
    """
    facts = layer.facts
    layer.spend(10 * (layer.num_ranks * layer.slots + len(layer.weight)))
    line = Line(layer)
    before = facts[SWAPS] + facts[CHAINS]
    while True:
        _swap_all(layer, line, target, cutoff)
        if not target < layer.busiest() < cutoff or layer.skips(CHAINS) or not _chain(layer, line, target):
            return facts[SWAPS] + facts[CHAINS] - before
        facts[CHAINS] += 1


def _swap_all(layer: Layer, line: Line, target: int, cutoff: int) -> None:
    """Swap until no rank above ``target`` has a swap left: the heaviest first, then the next, and then all again.

    Gives up where the heaviest is stuck well above ``cutoff``.
    """
    swaps = before = 0
    at = last = layer.num_ranks - 1
    while layer.goes_on():
        g = layer.order()[at]
        if at == 0 or layer.load[g] <= target:
            if swaps == before:
                return
            before, at = swaps, last
            continue
        found = _find_in_line(layer, line, g, target)
        if found is not None:
            line.swap(layer, g, *found)
            swaps += 1
            layer.facts[SWAPS] += 1
        elif at == last and layer.load[g] >= cutoff + (cutoff - target) // FAR:
            return
        else:
            at -= 1


def _find_in_line(layer: Layer, line: Line, g: int, target: int) -> tuple[int, int] | None:
    """Return (place on rank ``g``, place in line) of the swap that leaves the heavier of both ranks lightest.

    The first that brings both to the target will do.
    """
    held, load, each = layer.held, layer.load, layer.each
    top = best = load[g]
    least = min(load)
    found = None
    for i in reversed(range(layer.slots)):
        e, looked = held[g][i], 0
        for q in line.below(e):
            looked += 1
            f, h = line.expert[q], line.owner[q]
            d = each[e] - each[f]
            if least + d >= best:
                break
            heavier = max(top - d, load[h] + d)
            if heavier < best and e not in held[h] and f not in held[g]:
                best, found = heavier, (i, q)
                if best <= target:
                    return found
        layer.spend(3 * looked + 5)
    return found


def _chain(layer: Layer, line: Line, target: int) -> bool:
    """Swap the heaviest rank with another that gets too heavy, which then swaps with a third.

    Of the chains that leave all three below the heaviest load, the one that leaves them lightest, or the first that
    brings them to the target. Returns whether there was one.
    """
    held, load, each = layer.held, layer.load, layer.each
    g = layer.order()[-1]
    top = best = load[g]
    least = min(load)
    found = None
    for i, e in enumerate(held[g]):
        tried = 0
        for q in line.below(e):
            f, k = line.expert[q], line.owner[q]
            lighter = top - (each[e] - each[f])
            if best <= target or tried == FIRST or lighter < least:
                break
            if lighter >= best or k == g or e in held[k] or f in held[g]:
                continue
            tried += 1
            reached, y, r = _find_second(layer, line, g, e, q, max(lighter, target), best)
            if reached < best:
                best, found = reached, (i, q, k, y, r)
        if not layer.goes_on(line.first[e]):
            break
    if found is None:
        return False
    i, q, k, y, r = found
    line.swap(layer, g, i, q)
    line.swap(layer, k, held[k].index(y), r)
    return True


def _find_second(layer: Layer, line: Line, g: int, e: int, q: int, enough: int, best: int) -> tuple[int, int, int]:
    """Return (heaviest of the three ranks, expert, place in line) of the best second swap of a chain.

    Rank k, which gets ``e`` from rank ``g`` for what is at ``q`` in line, gives one of its experts for a third rank's.
    The first that leaves no more than ``enough`` will do; nothing found is ``best`` itself.
    """
    held, load, each = layer.held, layer.load, layer.each
    least = min(load)
    f, k = line.expert[q], line.owner[q]
    over = load[k] + each[e] - each[f]
    then = at = -1
    for y in held[k]:
        y, looked = e if y == f else y, 0
        for r in line.below(y):
            looked += 1
            w, h = line.expert[r], line.owner[r]
            d = each[y] - each[w]
            if least + d >= best:
                break
            heavier = max(over - d, load[h] + d)
            if heavier >= best or h in (g, k) or w == e or y in held[h] or w in held[k]:
                continue
            best, then, at = max(heavier, enough), y, r
            if heavier <= enough:
                return best, then, at
        layer.spend(5 * looked + 5)
    return best, then, at
