"""A lower bound on the expected time of the busiest rank, over all counts, placements and active sets.

The domain: every expert has c >= 1 active replicas with an even share of its tokens each, at most P in all; which rank
holds them is free, and so is how many a rank holds; tokens of a replica are Poisson. The cost of a replica with a mean
of x tokens is f(x) of ``equipoise.latency.curve``; f(0) = 0, f rises, and f(x) / x falls, for it is the mean of
g(n + 1) / (n + 1) with g(n) / n falling, and n grows with x. So c f(w / c) rises with c: replicas add work.

T is less than the busiest rank's cost in any plan if one of three holds. With c(T) the fewest replicas of an expert,
of w tokens, that cost at most T each, which each expert has at least:

replicas    the sum of c(T) exceeds P.
work        the sum of c(T) f(w / c(T)) exceeds R T: all ranks together have no room for it.
counting    for some k >= 1, weight 0 < a <= 1 and price q >= 0 of a slot, replicas count for more than R. Let m(v) be
            the largest whole number below (k + 1) v / T. On a rank that costs at most T the m sum to less than k + 1,
            so
            m / k sum to at most 1 (a dual feasible function; Fekete and Schepers, 2001), as v / T do, and as any
            mixture of both does. All slots beyond one an expert are P - E. So the sum over experts of the least over c,
            at least c(T), of c (a m(f(w / c)) / k + (1 - a) f(w / c) / T) + q (c - 1), less q (P - E), is at most R.
            For each m that an expert's replicas may have, the fewest replicas with it are the least.

The first two are the mean and the replica bound of tokens; the third says that where all replicas cost the floor, ranks
hold so many and no more. T is looked for between one that is too short and one that is possible, or was achieved.
"""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import allocating, frozen
from equipoise.latency.curve import most_tokens, slot_time
from equipoise.timing.costs import least_replicas

__all__ = ["CLOSE", "least_busiest", "least_with_company", "raise_by_counting"]

ROUNDS, LEAST_PART = 40, 0.02  # steps between a bound and a time that is possible; of the interval, each at least that
CLOSE, COUNTED_CLOSE = 1e-4, 2e-3  # relative; where it is so small, nothing is halved
SAFE = 1e-9  # relative; what is counted against a plan is counted so much lower
MOST_COUNTED, MULTIPLES = 40, 5
TOKENS_ALIKE, TIMES_ALIKE = 1.1, 1.002  # experts so near to each other count as the smallest of them
WEIGHTS = frozen(np.array([0.8, 0.7, 0.9, 1.0, 0.75, 0.85, 0.9]), np.float64)
PRICES = frozen(np.array([0.0, 0.0, 0.0, 0.0, 0.005, 0.0, 0.05]), np.float64)
"""Weights a and prices q that are tried, a mixture each."""


@allocating
def least_busiest(curve, ordered, num_ranks, num_slots):
    """Return a bound on the busiest rank's expected time, without what is fixed, by replicas and work.

    Between a time that is too short and one that is not, the next one tried is where a line through the work that each
    leaves meets zero, or the middle where replicas alone exceed the slots.
    """
    low = ordered.rest[0] / num_ranks * (1.0 - SAFE)
    high = max(ordered.single[0], low)
    over = -_room(curve, ordered, num_ranks, num_slots, low * (1.0 + 2.0 * SAFE))
    if over <= 0.0:
        return low
    left = _room(curve, ordered, num_ranks, num_slots, high)
    for _ in range(ROUNDS):
        if high - low <= CLOSE * high:
            break
        part = over / (over + left) if over < np.inf else 0.5
        time = low + (high - low) * min(max(part, LEAST_PART), 1.0 - LEAST_PART)
        room = _room(curve, ordered, num_ranks, num_slots, time)
        if room >= 0.0:
            high, left = time, room
            over *= 0.5
        else:
            low, over = time, -room
            left *= 0.5
    return low


@allocating
def least_with_company(ordered, num_ranks, slots):
    """Return a bound for ``slots`` a rank of which none is spare: all are active, and the hottest has company."""
    if num_ranks * slots > len(ordered.tokens):
        return 0.0
    return (ordered.single[0] + ordered.rest[len(ordered.tokens) - slots + 1]) * (1.0 - SAFE)


@allocating
def _room(curve, ordered, num_ranks, num_slots, time):
    """Return what work leaves of ``time`` on all ranks, below 0 if that is not possible; -inf if there are no slots."""
    most, slots, work = most_tokens(curve, time), 0, 0.0
    experts = len(ordered.tokens)
    for i in range(experts):
        each = ordered.tokens[i]
        if each <= most:
            work += ordered.rest[i]
            slots += experts - i
            break
        count = least_replicas(each, most, num_slots)
        slots += count
        if slots > num_slots:
            break
        work += count * slot_time(curve, each / count)
    return num_ranks * time * (1.0 + SAFE) - work if slots <= num_slots else -np.inf


@allocating
def raise_by_counting(curve, ordered, num_ranks, num_slots, bound, achieved):
    """Return ``bound``, which replicas and work gave, raised by counting; never above ``achieved``.

    Each k is asked for a little more than the best so far, and only one that has more is asked how much. Those are
    asked that are multiples of what ranks may hold: where replicas cost much the same, others have nothing to say.
    """
    low, sums = min(bound, achieved), np.empty(len(WEIGHTS))
    slots = num_slots // num_ranks
    fewest = max(len(ordered.tokens) // num_ranks, 1)
    for at in range(MULTIPLES * (slots + 1 - fewest)):
        if achieved - low <= COUNTED_CLOSE * achieved:
            break
        k = (at % MULTIPLES + 1) * (fewest + at // MULTIPLES)
        if k > MOST_COUNTED:
            continue
        shape, middle = (num_ranks, num_slots, k), low * (1.0 + COUNTED_CLOSE)
        if not _counts_for_too_many(curve, ordered, shape, middle, sums):
            continue
        low, high = middle, achieved
        while high - low > COUNTED_CLOSE * high:
            middle = 0.5 * (low + high)
            if _counts_for_too_many(curve, ordered, shape, middle, sums):
                low = middle
            else:
                high = middle
    return low


@allocating
def _counts_for_too_many(curve, ordered, shape, time, sums):
    """Whether replicas count for more than the ranks hold in ``time``; ``shape`` is ranks, slots and k."""
    num_ranks, num_slots, k = shape
    if _counts_unsplit(ordered.single, k, time / (k + 1)) <= num_ranks * k:
        return False
    _count(curve, ordered, num_slots - len(ordered.tokens), k, time, sums)
    return sums.max() > num_ranks * (1.0 + SAFE)


@allocating
def _counts_unsplit(single, k, unit):
    """Return the sum of m over experts whose only replica costs ``single`` float64 [experts], descending.

    Of each at most k + 1: what costs more than T is split.
    """
    total = 0
    for i in range(1, k + 2):  # those that cost more than i units
        low, high = 0, len(single)
        while low < high:
            middle = (low + high) // 2
            if single[middle] > i * unit:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            break
        total += low
    return total


@allocating
def _count(curve, ordered, spare, k, time, sums):
    """Set ``sums`` float64 [mixtures] to what replicas count for at least, as in the third argument.

    More replicas are more work, so of the counts only those are looked at whose m together are fewer.
    """
    experts, unit = len(ordered.tokens), time / (k + 1) * (1.0 + SAFE)
    tokens = np.empty(k + 1)  # the most tokens with which a replica has m = i
    for i in range(k + 1):
        tokens[i] = most_tokens(curve, min((i + 1) * unit, time))
        if tokens[i] >= ordered.tokens[0]:
            tokens[i:] = tokens[i]
            break
    best = np.empty(len(WEIGHTS))
    for x in range(len(WEIGHTS)):
        sums[x] = -PRICES[x] * spare
    first, top = 0, k
    while first < experts and ordered.tokens[first] > tokens[0]:
        last = first  # of those alike: all count at least as the last of them does
        while (
            last + 1 < experts
            and ordered.tokens[last + 1] > tokens[0]
            and ordered.tokens[last + 1] * TOKENS_ALIKE >= ordered.tokens[first]
            and ordered.single[last + 1] * TIMES_ALIKE >= ordered.single[first]
        ):
            last += 1
        while top > 0 and tokens[top - 1] >= ordered.tokens[last]:
            top -= 1
        best[:] = np.inf
        fewest = k * (spare + 1) + 1
        for i in range(top, -1, -1):
            count = least_replicas(ordered.tokens[last], tokens[i], spare + 1)
            if count > spare + 1:
                break
            if count * i < fewest:
                fewest = count * i
                work = slot_time(curve, ordered.tokens[last] / count) if count > 1 else ordered.single[last]
                for x in range(len(WEIGHTS)):
                    counted = WEIGHTS[x] * (count * i / k) + (1.0 - WEIGHTS[x]) * (work * count / time)
                    best[x] = min(best[x], counted + PRICES[x] * (count - 1))
        for x in range(len(WEIGHTS)):
            sums[x] += best[x] * (last + 1 - first)
        first = last + 1
    for x in range(len(WEIGHTS)):
        sums[x] += (1.0 - WEIGHTS[x]) * ordered.rest[first] / time
