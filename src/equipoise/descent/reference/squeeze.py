"""Finish a placement that is nearly level: fill ranks to the target exactly, so that the room left over gathers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from equipoise.descent.reference.layer import Layer, Part

__all__ = ["deal_again", "squeeze"]

WASTE = 3  # what room left on a full rank costs, where load that its partner has too much costs one


def squeeze(layer: Layer, target: int) -> bool:
    """Fill ranks until none is above ``target``, or none can be; return whether that succeeded.

    The heaviest rank is brought just below the target and then left alone, full; then the heaviest of the others.
    """
    pairs = layer.slots * (layer.slots - 1) // 2
    layer.spend(layer.num_ranks * 10 * (layer.slots + pairs))
    room = sum(target - load for load in layer.load)  # of all ranks that are not full
    full: set[int] = set()
    while room >= 0 and layer.goes_on():
        g = next(g for g in reversed(layer.order()) if g not in full)
        if layer.load[g] <= target:
            return True
        found = _fill(layer, target, g, full, room)
        if found is None:
            return False
        layer.exchange(g, *found)
        full.add(g)
        room -= target - layer.load[g]
    return False


def _fill(layer: Layer, target: int, g: int, full: set[int], room: int) -> tuple[Part, int, Part] | None:
    """Return (part of ``g``, rank, part of that) of the exchange that brings ``g`` below ``target`` and costs least.

    Of each part of a rank's, the heaviest part of the other that leaves ``g`` low enough is looked at first, then
    lighter ones, which waste more, until one may be exchanged.
    """
    need = layer.load[g] - target
    best = WASTE * (room + 1)
    found = None
    for h in layer.order():
        if max(layer.load[h] + need - target, 0) >= best:
            break
        if h == g or h in full:
            continue
        for size in (1, 2):
            mine, theirs = layer.parts(g, size), layer.parts(h, size)
            layer.spend(3 * len(mine))
            loads = [v for v, _ in theirs]
            for u, part in reversed(mine):
                for k in reversed(range(bisect_right(loads, u - need))):
                    waste = u - loads[k] - need
                    cost = WASTE * waste + max(layer.load[h] + need + waste - target, 0)
                    layer.spend(5)
                    if cost >= best:
                        break
                    if layer.may_exchange(g, part, h, theirs[k][1]):
                        best, found = cost, (part, h, theirs[k][1])
                        break
    return found


def deal_again(layer: Layer, target: int, p: int, q: int) -> None:
    """Take the replicas at places ``p`` and ``q`` from all ranks, and deal them again to fill rank after rank.

    The rank with least room for them comes first, and takes the two, one of each place, that fill it best without
    passing ``target``; the last of both where no two fit.
    """
    each, ranks = layer.each, range(layer.num_ranks)
    first, second = (
        [layer.held[g][at] for g in sorted(ranks, key=lambda g: (-each[layer.held[g][at]], -g))] for at in (p, q)
    )
    load = [layer.load[g] - each[layer.held[g][p]] - each[layer.held[g][q]] for g in ranks]
    held, clean = [list(rank) for rank in layer.held], True
    for g in sorted(ranks, key=lambda g: (-load[g], -g)):
        left = [e for i, e in enumerate(held[g]) if i not in (p, q)]
        found = _fullest(each, left, target - load[g], first, second)
        clean &= found is not None
        i, j = (len(first) - 1, len(second) - 1) if found is None else found
        held[g][p], held[g][q] = first.pop(i), second.pop(j)
    layer.place(held if clean else layer.apart(held))


def _fullest(
    each: list[int], left: list[int], room: int, first: list[int], second: list[int]
) -> tuple[int, int] | None:
    """Return which of the first and second replicas fill ``room`` best: for each first, the largest second that fits.

    Where a rank may not take that one, no other is looked for.
    """
    best, found = room + 1, None
    loads = [-each[f] for f in second]  # ascending
    for i, e in enumerate(first):
        j = bisect_left(loads, each[e] - room)
        if j == len(second):
            continue
        f = second[j]
        rest = room - each[e] - each[f]
        if rest < best and e != f and e not in left and f not in left:
            best, found = rest, (i, j)
    return found
