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
hold so many and no more. T is found by bisection between a T of which one is known to hold, and what was achieved.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from equipoise.kernels.native import native
from equipoise.latency.curve import most_tokens, slot_moments, slot_time
from equipoise.timing.costs import least_replicas

__all__ = ["Sorted", "least_busiest", "least_with_company", "new_sorted", "raise_by_counting", "sort_experts"]

ROUNDS, COUNTED_ROUNDS = 24, 7  # halvings of the interval between a bound and what was achieved
CLOSE, COUNTED_CLOSE = 1e-5, 2e-3  # relative; where it is so small, nothing is halved
SAFE = 1e-9  # relative; what is counted against a plan is counted so much lower
MOST_COUNTED = 40
BITS = 17  # of an expert's number
TOKENS_ALIKE, TIMES_ALIKE = 1.1, 1.002  # experts so near to each other count as the smallest of them
MIXTURES = ((0.8, 0.0), (0.7, 0.0), (0.9, 0.0), (1.0, 0.0), (0.75, 0.005), (0.85, 0.0), (0.9, 0.05))
"""Weights a and prices q that are tried."""


class Sorted(NamedTuple):
    """Experts by descending mean of tokens.

    expert int64 [experts]; tokens float64 [experts]; single, spread, full float64 [experts], of an only replica the
    expected time, its variance and what it is where a token comes; rest float64 [experts + 1], the sum of ``single``
    from each on.
    """

    expert: Any
    tokens: Any
    single: Any
    spread: Any
    full: Any
    rest: Any


@native
def new_sorted(experts):
    """Return room for the experts of a layer."""
    return Sorted(
        np.empty(experts, np.int64),
        np.empty(experts),
        np.empty(experts),
        np.empty(experts),
        np.empty(experts),
        np.empty(experts + 1),
    )


@native
def sort_experts(curve, tokens, ordered):
    """Set ``ordered`` to the experts with means of ``tokens`` float64 [experts], ties to the lowest number.

    Means are compared in steps of 3e-14 of the largest, so that one integer has mean and expert.
    """
    experts = len(tokens)
    most = 0.0
    for each in tokens:
        most = max(most, each)
    for e in range(experts):
        ordered.expert[e] = (np.int64(np.rint((1.0 - tokens[e] / max(most, 1e-300)) * 2.0**45)) << BITS) | e
    ordered.expert.sort()
    ordered.rest[experts] = 0.0
    for i in range(experts - 1, -1, -1):
        ordered.expert[i] &= (1 << BITS) - 1
        ordered.tokens[i] = tokens[ordered.expert[i]]
        time, spread, chance = slot_moments(curve, ordered.tokens[i])
        ordered.single[i], ordered.spread[i], ordered.full[i] = time, spread, time / chance if chance > 0.0 else 0.0
        ordered.rest[i] = ordered.rest[i + 1] + ordered.single[i]


@native
def least_busiest(curve, ordered, num_ranks, num_slots):
    """Return a bound on the busiest rank's expected time, without what is fixed, by replicas and work."""
    low = ordered.rest[0] / num_ranks * (1.0 - SAFE)
    high = max(ordered.single[0], low)
    if _has_room(curve, ordered, num_ranks, num_slots, low * (1.0 + 2.0 * SAFE)):
        return low
    for _ in range(ROUNDS):
        if high - low <= CLOSE * high:
            break
        middle = 0.5 * (low + high)
        if _has_room(curve, ordered, num_ranks, num_slots, middle):
            high = middle
        else:
            low = middle
    return low


@native
def least_with_company(ordered, num_ranks, slots):
    """Return a bound for ``slots`` a rank of which none is spare: all are active, and the hottest has company."""
    if num_ranks * slots > len(ordered.tokens):
        return 0.0
    return (ordered.single[0] + ordered.rest[len(ordered.tokens) - slots + 1]) * (1.0 - SAFE)


@native
def _has_room(curve, ordered, num_ranks, num_slots, time):
    """Whether replicas and work leave ``time`` possible."""
    most, slots, work = most_tokens(curve, time), 0, 0.0
    experts = len(ordered.tokens)
    for i in range(experts):
        each = ordered.tokens[i]
        if each <= most:
            return slots + experts - i <= num_slots and work + ordered.rest[i] <= num_ranks * time * (1.0 + SAFE)
        count = least_replicas(each, most, num_slots)
        slots += count
        if slots > num_slots:
            return False
        work += count * slot_time(curve, each / count)
    return slots <= num_slots and work <= num_ranks * time * (1.0 + SAFE)


@native
def raise_by_counting(curve, ordered, num_ranks, num_slots, bound, achieved):
    """Return ``bound``, which replicas and work gave, raised by counting; never above ``achieved``."""
    low, high = min(bound, achieved), achieved
    sums, last = np.empty(len(MIXTURES)), 1
    for _ in range(COUNTED_ROUNDS):
        if high - low <= COUNTED_CLOSE * high:
            break
        middle = 0.5 * (low + high)
        k = _find_too_many(curve, ordered, num_ranks, num_slots, middle, (last, sums))
        if k > 0:
            low, last = middle, k
        else:
            high = middle
    return low


@native
def _find_too_many(curve, ordered, num_ranks, num_slots, time, asked):
    """Return a k for which replicas count for too many, 0 if there is none; the one found last is tried first."""
    last, sums = asked
    for at in range(min(3 * (num_slots // num_ranks) + 3, MOST_COUNTED) + 1):
        k = at if at > 0 else last
        if _counts_unsplit(ordered.single, k, time / (k + 1)) > num_ranks * k:
            _count(curve, ordered, num_slots - len(ordered.tokens), k, time, sums)
            if sums.max() > num_ranks * (1.0 + SAFE):
                return k
    return 0


@native
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


@native
def _count(curve, ordered, spare, k, time, sums):
    """Set ``sums`` float64 [mixtures] to what replicas count for at least, as in the third argument."""
    experts, unit = len(ordered.tokens), time / (k + 1) * (1.0 + SAFE)
    tokens, known = np.empty(k + 1), 1  # the most tokens with which a replica has m = i
    tokens[0] = most_tokens(curve, min(unit, time))
    for x in range(len(MIXTURES)):
        sums[x] = -MIXTURES[x][1] * spare
    best = np.empty(len(MIXTURES))
    first = 0
    while first < experts and ordered.tokens[first] > tokens[0]:
        last = first  # of those alike: all count at least as the last of them does
        while (
            last + 1 < experts
            and ordered.tokens[last + 1] > tokens[0]
            and ordered.tokens[last + 1] * TOKENS_ALIKE >= ordered.tokens[first]
            and ordered.single[last + 1] * TIMES_ALIKE >= ordered.single[first]
        ):
            last += 1
        best[:] = np.inf
        for i in range(k + 1):
            if i == known:
                tokens[i] = most_tokens(curve, min((i + 1) * unit, time))
                known += 1
            count = least_replicas(ordered.tokens[last], tokens[i], spare + 1)
            if count <= spare + 1:
                work = slot_time(curve, ordered.tokens[last] / count) if count > 1 else ordered.single[last]
                work *= count / time
                for x in range(len(MIXTURES)):
                    a, price = MIXTURES[x]
                    best[x] = min(best[x], a * (count * i / k) + (1.0 - a) * work + price * (count - 1))
            if count == 1:
                break
        for x in range(len(MIXTURES)):
            sums[x] += best[x] * (last + 1 - first)
        first = last + 1
    for x in range(len(MIXTURES)):
        sums[x] += (1.0 - MIXTURES[x][0]) * ordered.rest[first] / time
