"""The exchanges by which one packing is refined, native; see the folder's contract."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.bits import bits_for
from equipoise.kernels.native import allocating, internal

__all__ = ["MAX", "refine"]

MAX = np.int64(2**63 - 1)


@allocating
def refine(weight, members, load, swaps, extremes):
    """Exchange items between heavy and light packs, best first, until none levels them or ``swaps`` are done."""
    num_packs, room = members.shape
    shift = bits_for(num_packs)
    ascending = np.empty((num_packs, room), dtype=np.int64)  # each pack's items by (weight, item)
    for p in range(num_packs):
        for place in range(room):
            _insert(weight, ascending[p], place, members[p, place])
    heavy, light = np.empty(extremes, dtype=np.int64), np.empty(extremes, dtype=np.int64)
    packed_heavy, packed_light = np.empty(num_packs, dtype=np.int64), np.empty(num_packs, dtype=np.int64)
    for _ in range(swaps):
        for p in range(num_packs):
            packed_light[p] = (load[p] << shift) | p
            packed_heavy[p] = (load[p] << shift) | (num_packs - 1 - p)
        above, below = MAX, np.int64(-1)
        mask = np.int64((1 << shift) - 1)
        for k in range(extremes):
            top, bottom = np.int64(-1), MAX
            for p in range(num_packs):
                top = max(top, packed_heavy[p] if packed_heavy[p] < above else np.int64(-1))
                bottom = min(bottom, packed_light[p] if packed_light[p] > below else MAX)
            above, below = top, bottom
            heavy[k], light[k] = num_packs - 1 - (top & mask), bottom & mask
        best_gain = 0.0
        best_a = best_b = best_u = best_v = np.int64(-1)
        for a in heavy:
            for b in light:
                difference = load[a] - load[b]
                if difference <= 0 or np.float64(difference) * np.float64(difference) * 0.25 < best_gain * 0.999999:
                    continue  # no exchange gains more than half the difference, squared
                u, v = _nearest_swap(weight, ascending[a], ascending[b], difference)
                if u >= 0:
                    d = weight[u] - weight[v]
                    gain = np.float64(d) * np.float64(difference - d)
                    if gain > best_gain:
                        best_gain, best_a, best_b, best_u, best_v = gain, a, b, u, v
        if best_a < 0:
            return
        _replace(weight, members[best_a], ascending[best_a], best_u, best_v)
        _replace(weight, members[best_b], ascending[best_b], best_v, best_u)
        load[best_a] -= weight[best_u] - weight[best_v]
        load[best_b] += weight[best_u] - weight[best_v]


@internal
def _insert(weight, ascending, count, item):
    """Insert ``item`` into the first ``count`` entries of ``ascending``, kept by (weight, item)."""
    at = count
    while at > 0 and (
        weight[ascending[at - 1]] > weight[item]
        or (weight[ascending[at - 1]] == weight[item] and ascending[at - 1] > item)
    ):
        ascending[at] = ascending[at - 1]
        at -= 1
    ascending[at] = item


@internal
def _replace(weight, members, ascending, old, new):
    """Put ``new`` in the place of ``old`` in one pack."""
    room = len(members)
    for place in range(room):
        if members[place] == old:
            members[place] = new
    at = 0
    while ascending[at] != old:
        at += 1
    for place in range(at, room - 1):
        ascending[place] = ascending[place + 1]
    _insert(weight, ascending, room - 1, new)


@internal
def _nearest_swap(weight, a, b, difference):
    """Return the items (u, v) of two ascending packs whose difference is nearest to half of ``difference``.

    Only exchanges with 0 < w_u - w_v < difference count; (-1, -1) if there is none. One pass over
    both packs: as u grows, so does the v that suits it.
    """
    room = len(a)
    best = MAX
    best_u = best_v = np.int64(-1)
    j = below = 0  # b[j]: the first with twice its weight at least the target; b[below]: first of the weight before
    for i in range(room):
        u = a[i]
        if i > 0 and weight[u] == weight[a[i - 1]]:
            continue  # the lowest item of a weight stands for all
        target = 2 * weight[u] - difference
        while j < room and 2 * weight[b[j]] < target:
            if j == 0 or weight[b[j]] != weight[b[j - 1]]:
                below = j
            j += 1
        for side in range(2):
            at = j if side else below
            if at == room or (side == 0 and j == 0):
                continue
            v = b[at]
            d = weight[u] - weight[v]
            if d <= 0 or d >= difference:
                continue
            off = abs(2 * d - difference)
            if off < best or (off == best and (u < best_u or (u == best_u and v < best_v))):
                best, best_u, best_v = off, u, v
    return best_u, best_v
