"""Pruned restarts, native: restarts are streamed, and only the survivors' numbers are kept.

Three things make it fast. Keys are sorted by one counting pass over their leading bits and an
insertion pass over what little disorder is left. A pack's load and number share one integer, so
that the lightest pack with room is the plain minimum of an array. And a restart is dropped as
soon as the packs that are full, or the mean, show that it cannot be among the survivors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.bits import bits_for
from equipoise.kernels.native import allocating, internal, native
from equipoise.restarts import counter
from equipoise.restarts.refine import MAX, refine
from equipoise.restarts.settings import Settings
from equipoise.threads import for_each, num_threads

__all__ = ["pack"]

Int64s = NDArray[np.int64]

MASK = np.uint64(counter.MASK)
MIX_1, MIX_2 = np.uint64(counter.MIX_1), np.uint64(counter.MIX_2)
RESTART_STEP, ITEM_STEP = np.uint64(counter.RESTART_STEP), np.uint64(counter.ITEM_STEP)
S8, S12, S15, S16, S32 = (np.uint64(s) for s in (8, 12, 15, 16, 32))
BUCKET_SHIFT, NUM_BUCKETS = 46, 512  # 64 buckets to each factor of two between keys, eight factors of two


class Starts(NamedTuple):
    """The restarts of one row: the items, int64 [items], by descending weight, ties to the lowest, and their weights.

    Restart r of ``restarts`` multiplies each weight by up to 1 + noise r / (restarts - 1), by numbers keyed by ``key``.
    """

    order: Any
    weight: Any
    key: Any
    noise: Any
    restarts: Any


class Scratch(NamedTuple):
    """Work space, one entry an item, a bucket (``starts``) or a pack (``packed``, ``size``).

    ``by_key`` is where one restart's order is left, positions by descending key, and ``pack_of`` its packing.
    """

    keys: Any
    sorted_keys: Any
    buckets: Any
    by_key: Any
    pack_of: Any
    starts: Any
    packed: Any
    size: Any


def pack(
    weight: Int64s, num_packs: int, settings: Settings, key: NDArray[np.uint64], threads: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pack ``weight`` [rows, items] into ``num_packs`` packs of equal size; see the folder's contract."""
    rows, items = weight.shape
    pack_index = np.empty((rows, items), dtype=np.int32)
    rank_in_pack = np.empty((rows, items), dtype=np.int32)
    survivors = min(settings.refined, settings.restarts)
    chunks = min(max(1, num_threads(threads) // rows), max(1, settings.restarts // survivors))
    edges = [settings.restarts * chunk // chunks for chunk in range(chunks + 1)]
    kept = np.full((rows, chunks, 3, survivors), MAX)
    sorted_rows = [_sort_row(weight[row]) for row in range(rows)]

    def starts(row: int) -> Starts:
        """Return how the restarts of a row begin."""
        return Starts(*sorted_rows[row], key[row], settings.noise, settings.restarts)

    def score(unit: tuple[int, int]) -> None:
        """Score some restarts of a row, and keep the best."""
        row, chunk = unit
        _score(starts(row), num_packs, edges[chunk], edges[chunk + 1], kept[row, chunk])

    def finish(row: int) -> None:
        """Refine the best restarts of a row, and write its packs."""
        survivors, how = _merge(kept[row]), (settings.swaps, settings.extremes)
        _finish(starts(row), num_packs, survivors, how, pack_index[row], rank_in_pack[row])

    for_each(score, [(row, chunk) for row in range(rows) for chunk in range(chunks)], threads)
    for_each(finish, range(rows), threads)
    return pack_index, rank_in_pack


def _sort_row(weight: Int64s) -> tuple[Int64s, Int64s]:
    """Return the items by descending weight, ties to the lowest, and their weights."""
    order = np.argsort(-weight, kind="stable").astype(np.int64)
    return order, weight[order]


def _merge(kept: Int64s) -> Int64s:
    """Return the surviving restarts of one row out of those that each chunk kept, best first."""
    imbalance, restart, print_ = (kept[:, i].ravel() for i in range(3))
    found: dict[tuple[int, int], int] = {}
    for i in np.lexsort((restart, imbalance)):
        if restart[i] != MAX:
            found.setdefault((int(imbalance[i]), int(print_[i])), int(restart[i]))
    return np.array(list(found.values())[: kept.shape[2]], dtype=np.int64)


@internal
def _mix(value: Any) -> Any:
    value ^= value >> S16
    value = (value * MIX_1) & MASK
    value ^= value >> S15
    value = (value * MIX_2) & MASK
    return value ^ (value >> S16)


@allocating
def _counters(order: Any) -> Any:
    """Return the counter of each item, in the order given."""
    out = np.empty(len(order), dtype=np.uint64)
    for i in range(len(order)):
        out[i] = (np.uint64(order[i]) * ITEM_STEP) & MASK
    return out


@allocating
def _new_scratch(items, packs):
    return Scratch(
        np.empty(items, dtype=np.float64), np.empty(items, dtype=np.int64), np.empty(items, dtype=np.int64),
        np.empty(items, dtype=np.int64), np.empty(items, dtype=np.int64), np.empty(NUM_BUCKETS, dtype=np.int64),
        np.empty(packs, dtype=np.int64), np.empty(packs, dtype=np.int64),
    )  # fmt: skip


@internal
def _sort_keys(rows, counters, restart, scratch):
    """Fill ``by_key`` with positions in ``order``, by descending perturbed weight, ties to the lowest item."""
    order, weight, n = rows.order, rows.weight, len(rows.order)
    keys, sorted_keys, buckets, by_key = scratch.keys, scratch.sorted_keys, scratch.buckets, scratch.by_key
    starts = scratch.starts
    scale, stream = rows.noise * restart / max(rows.restarts - 1, 1), _stream(rows.key, restart)
    for i in range(n):
        u = np.float64(_mix((stream + counters[i]) & MASK) >> S8) * 2.0**-24
        keys[i] = np.float64(weight[i]) * (1.0 + scale * u)
    bits = keys.view(np.int64)  # of floats that are not negative: the same order
    top = np.int64(0)
    for i in range(n):
        top = max(top, bits[i])
    top >>= BUCKET_SHIFT
    starts[:] = 0
    for i in range(n):
        buckets[i] = min(top - (bits[i] >> BUCKET_SHIFT), NUM_BUCKETS - 1)
    for i in range(n):
        starts[buckets[i]] += 1
    total = 0
    for b in range(NUM_BUCKETS):
        here = starts[b]
        starts[b] = total
        total += here
    for i in range(n):
        at = starts[buckets[i]]
        starts[buckets[i]] = at + 1
        sorted_keys[at] = bits[i]
        by_key[at] = i
    for i in range(1, n):
        bit, position = sorted_keys[i], by_key[i]
        j = i - 1
        while j >= 0 and (sorted_keys[j] < bit or (sorted_keys[j] == bit and order[by_key[j]] > order[position])):
            sorted_keys[j + 1] = sorted_keys[j]
            by_key[j + 1] = by_key[j]
            j -= 1
        sorted_keys[j + 1] = bit
        by_key[j + 1] = position


@internal
def _greedy(weight, num_packs, mean, limit, scratch):
    """Pack the items in the order of ``by_key`` and return heaviest - lightest pack.

    Returns MAX instead, and leaves the rest unpacked, once the result is sure to reach ``limit``.
    """
    by_key, packed, size, pack_of = scratch.by_key, scratch.packed, scratch.size, scratch.pack_of
    n, shift = len(by_key), bits_for(num_packs)
    room = n // num_packs
    heaviest, lightest = np.int64(0), MAX
    pack_mask = np.int64((1 << shift) - 1)
    for p in range(num_packs):
        packed[p] = p
        size[p] = 0
    first = 0  # each of the first items meets an empty pack, as long as all before it weigh something
    while room > 1 and first < num_packs and weight[by_key[first]] > 0:
        packed[first] += weight[by_key[first]] << shift
        size[first] = 1
        pack_of[first] = first
        first += 1
    for i in range(first, n):
        best = MAX
        for p in range(num_packs):
            best = min(best, packed[p])
        p = best & pack_mask
        best += weight[by_key[i]] << shift
        pack_of[i] = p
        size[p] += 1
        if size[p] < room:
            packed[p] = best
            continue
        packed[p] = MAX
        load = best >> shift
        heaviest = max(heaviest, load)
        lightest = min(lightest, load)
        if heaviest - min(lightest, mean) >= limit:
            return MAX
    return heaviest - lightest


@internal
def _fingerprint(item_hash, by_key, pack_of, num_packs, sums):
    """Return a number that restarts share when they put the same weights together."""
    sums[:] = 0
    for i in range(len(by_key)):
        sums[pack_of[i]] += item_hash[by_key[i]]
    low = high = np.uint64(0)
    for p in range(num_packs):
        half = _mix((sums[p] ^ (sums[p] >> S32)) & MASK)
        low += half
        high += _mix((half + (sums[p] >> S12)) & MASK)
    return np.int64(((high & (MASK >> np.uint64(1))) << S32) | (low & MASK))


@allocating
def _hash_weights(weight):
    """Return 44 random bits for each item of a sorted row, the same for equal weights."""
    out = np.empty(len(weight), dtype=np.uint64)
    for i in range(len(weight)):
        if i > 0 and weight[i] == weight[i - 1]:
            out[i] = out[i - 1]
        else:
            word = _mix((np.uint64(i) * ITEM_STEP) & MASK)
            out[i] = (word << S12) | (_mix(word ^ ITEM_STEP) >> np.uint64(20))
    return out


@internal
def _stream(key, restart):
    return _mix((key + ((np.uint64(restart) * RESTART_STEP) & MASK)) & MASK)


@native
def _score(rows, num_packs, first, last, kept):
    """Fill ``kept`` with (imbalance, restart, fingerprint) of the best of the restarts first to last - 1."""
    weight = rows.weight
    mean = weight.sum() // num_packs
    counters, item_hash = _counters(rows.order), _hash_weights(weight)
    scratch, sums = _new_scratch(len(weight), num_packs), np.empty(num_packs, dtype=np.uint64)
    imbalances, restart_of, prints = kept[0], kept[1], kept[2]
    count = 0
    for restart in range(first, last):
        _sort_keys(rows, counters, restart, scratch)
        limit = imbalances[-1] if count == len(imbalances) else MAX
        imbalance = _greedy(weight, num_packs, mean, limit, scratch)
        if imbalance >= limit:
            continue
        print_ = _fingerprint(item_hash, scratch.by_key, scratch.pack_of, num_packs, sums)
        at = count
        while at > 0 and imbalances[at - 1] > imbalance:
            at -= 1
        known, j = False, at - 1
        while j >= 0 and imbalances[j] == imbalance:
            known |= prints[j] == print_
            j -= 1
        if known:
            continue
        count = min(count + 1, len(imbalances))
        for j in range(count - 1, at, -1):
            for column in range(len(kept)):
                kept[column, j] = kept[column, j - 1]
        imbalances[at], restart_of[at], prints[at] = imbalance, restart, print_


@native
def _finish(rows, num_packs, survivors, how, pack_index, rank_in_pack):
    """Make each surviving restart again, refine it by ``how``, (swaps, extremes), and write the best one."""
    order, weight, n = rows.order, rows.weight, len(rows.order)
    room = n // num_packs
    swaps, extremes = how
    counters, scratch = _counters(order), _new_scratch(n, num_packs)
    by_key, pack_of, size = scratch.by_key, scratch.pack_of, scratch.size
    by_item = np.empty(n, dtype=np.int64)
    for i in range(n):
        by_item[order[i]] = weight[i]
    members = np.empty((num_packs, room), dtype=np.int64)
    load = np.empty(num_packs, dtype=np.int64)
    smallest = MAX
    for restart in survivors:
        _sort_keys(rows, counters, restart, scratch)
        _greedy(weight, num_packs, np.int64(0), MAX, scratch)
        size[:] = 0
        load[:] = 0
        for i in range(n):
            p = pack_of[i]
            members[p, size[p]] = order[by_key[i]]
            load[p] += weight[by_key[i]]
            size[p] += 1
        refine(by_item, members, load, swaps, min(extremes, num_packs))
        least = most = load[0]
        for p in range(1, num_packs):
            least, most = min(least, load[p]), max(most, load[p])
        imbalance = most - least
        if imbalance < smallest:
            smallest = imbalance
            for p in range(num_packs):
                for place in range(room):
                    pack_index[members[p, place]] = p
                    rank_in_pack[members[p, place]] = place
