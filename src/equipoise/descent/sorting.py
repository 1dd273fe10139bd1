"""Sort keys that all differ, in the ways that are quickest for what descent sorts: few, spread, or nearly sorted."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import internal

__all__ = ["sort_ascending"]

RUN = 64  # keys that are sorted by counting
CROWD = 16  # keys in one bucket


@internal
def sort_ascending(keys, spare):
    """Sort ``keys``, which all differ, in place; ``spare`` is more than twice as long.

    Keys that are spread evenly are thrown into as many buckets as there are keys. Where they crowd, runs of ``RUN`` are
    sorted, then merged: in a run, each key's place is how many are lower, counted against all, so that no branch
    depends on the keys and the loops become vector instructions. Runs that are in order already are left alone.
    """
    n = len(keys)
    if n > RUN and _sort_spread(keys, spare):
        return
    for start in range(0, n, RUN):
        _sort_run(keys[start : start + RUN], spare)
    width = RUN
    while width < n:
        for low in range(0, n - width, 2 * width):
            middle, high = low + width, min(low + 2 * width, n)
            if keys[middle - 1] <= keys[middle]:
                continue
            for i in range(low, middle):
                spare[i] = keys[i]
            i, j, k = low, middle, low
            while i < middle and j < high:  # what is left on the right is in place already
                if spare[i] <= keys[j]:
                    keys[k] = spare[i]
                    i += 1
                else:
                    keys[k] = keys[j]
                    j += 1
                k += 1
            while i < middle:
                keys[k] = spare[i]
                i += 1
                k += 1
        width *= 2


@internal
def _sort_spread(keys, spare):
    """Sort by buckets of equal width, then by insertion; return False, and do nothing, where the keys crowd."""
    n = len(keys)
    least = most = keys[0]
    for i in range(n):
        least, most = min(least, keys[i]), max(most, keys[i])
    shift = 0
    while (most - least) >> shift >= n:
        shift += 1
    start = spare[n : 2 * n + 1]  # of each bucket
    start[:] = 0
    for i in range(n):
        start[((keys[i] - least) >> shift) + 1] += 1
    fullest = np.int64(0)
    for b in range(n):
        fullest = max(fullest, start[b + 1])
        start[b + 1] += start[b]
    if fullest > CROWD:
        return False
    for i in range(n):
        b = (keys[i] - least) >> shift
        spare[start[b]] = keys[i]
        start[b] += 1
    for i in range(n):
        key, j = spare[i], i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key
    return True


@internal
def _sort_run(keys, spare):
    n = len(keys)
    steps_down = 0
    for i in range(1, n):
        steps_down += np.int64(keys[i - 1] > keys[i])
    if steps_down == 0:
        return
    for i in range(n):
        key, lower = keys[i], np.int64(0)
        for j in range(n):
            lower += np.int64(keys[j] < key)
        spare[lower] = key
    for i in range(n):
        keys[i] = spare[i]
