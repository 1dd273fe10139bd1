"""The first deal of all replicas: in rounds, each round the largest to the lightest rank."""

from __future__ import annotations

from equipoise.descent.reference.layer import Held, Layer

__all__ = ["fold"]


def fold(layer: Layer) -> None:
    """Deal all replicas, the largest first, in rounds: each round every rank gets one, the lightest the largest.

    Only an expert whose replicas run on from the round before can come to a rank that has it. That rank changes with
    the nearest behind it in the round that may: those before it have the same expert, of this round or the last.
    """
    each, ranks = layer.each, range(layer.num_ranks)
    queue = [e for e in sorted(range(len(each)), key=lambda e: (-each[e], e)) for _ in range(layer.replicas[e])]
    held: Held = [[] for _ in ranks]
    load, clean, last = [0] * layer.num_ranks, True, -1
    for start in range(0, len(queue), layer.num_ranks):
        order = sorted(ranks, key=lambda g: (load[g], g))
        dealt = queue[start : start + layer.num_ranks]
        for i in [i for i in ranks if dealt[i] == last and last in held[order[i]]]:
            j = next((j for j in range(i + 1, len(order)) if dealt[j] != last and last not in held[order[j]]), i)
            dealt[i], dealt[j] = dealt[j], dealt[i]
            clean &= j > i
        last = queue[start + layer.num_ranks - 1]
        for g, e in zip(order, dealt, strict=True):
            held[g].insert(0, e)
            load[g] += each[e]
    layer.place(held if clean else layer.apart(held))
