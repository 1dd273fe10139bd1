"""The first deal of all replicas: in rounds, each round the largest to the lightest rank."""

from __future__ import annotations

from equipoise.descent.reference.layer import Held, Layer

__all__ = ["fold"]


def fold(layer: Layer) -> None:
    """Deal all replicas, the largest first, in rounds: each round every rank gets one, the lightest the largest.

    A rank that would get an expert again changes with the nearest rank of the round that suits both, which can only be
    needed for an expert whose replicas run on from the round before.
    """
    each, ranks = layer.each, range(layer.num_ranks)
    queue = [e for e in sorted(range(len(each)), key=lambda e: (-each[e], e)) for _ in range(layer.replicas[e])]
    held: Held = [[] for _ in ranks]
    load, clean, last = [0] * layer.num_ranks, True, -1
    for start in range(0, len(queue), layer.num_ranks):
        order = sorted(ranks, key=lambda g: (load[g], g))
        dealt = queue[start : start + layer.num_ranks]
        carried = [i for i in ranks if dealt[: i + 1] == [last] * (i + 1)]
        last = dealt[-1]
        for i in carried:
            if dealt[i] in held[order[i]]:
                clean &= _change_in_round(held, order, dealt, i)
        for g, e in zip(order, dealt, strict=True):
            held[g].insert(0, e)
            load[g] += each[e]
    layer.place(held if clean else layer.apart(held))


def _change_in_round(held: Held, order: list[int], dealt: list[int], i: int) -> bool:
    """Let the rank at ``i`` in the round change what it is dealt with the nearest that can; return whether one can."""
    for off in range(1, len(order)):
        for j in (i + off, i - off):
            if not 0 <= j < len(order) or dealt[j] == dealt[i]:
                continue
            if dealt[i] not in held[order[j]] and dealt[j] not in held[order[i]]:
                dealt[i], dealt[j] = dealt[j], dealt[i]
                return True
    return False
