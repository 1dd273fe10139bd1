"""A lower bound on the busiest rank where no slot is redundant: the experts are what they are, and only packed.

Domain: as many slots as experts, P = E, so that each has one replica. Let w_1 >= w_2 >= ... be the loads.

1. Of the j R + 1 heaviest experts some rank holds j + 1 (pigeonhole), for every j < S. These weigh no less than the
   j + 1 lightest of them, and the other S - j - 1 slots of that rank no less than the S - j - 1 lightest experts of
   all. With j = 0: the heaviest expert and the S - 1 lightest.
2. Of the k heaviest experts, k <= R, either two share a rank, which then carries at least the lightest two of them and
   the S - 2 lightest experts of all; or each has its own, and these k ranks hold k (S - 1) others, no less than the
   lightest of all, so that one of them carries a k-th of all that. The less of the two is a bound.
3. Where all loads are multiples of one number g, so are those of the ranks: the busiest carries at least the mean rank
   load, or what 1. and 2. say, rounded up to a multiple of g. With few tokens that is most of the gap to the mean.

As for bin packing with a limit on the items of a bin, where 1. is the usual bound by counting.
"""

from __future__ import annotations

import numpy as np

from equipoise.bounds.bound import SLOTS, Bound, Floats
from equipoise.kernels.native import native
from equipoise.problem import PlacementProblem

__all__ = ["BOUND"]

WHOLE = 2.0**53  # whole numbers from here on are not exact
NEAR, LEAST = (
    1e-9,
    1e-5,
)  # of the largest load: so near is a multiple, and a smaller part than that proves next to nothing


def _prove(problem: PlacementProblem, known: Floats, achieved: Floats) -> Floats:
    """Raise what is ``known``, which is at least the mean."""
    ranks, slots = problem.cluster.num_ranks, problem.cluster.slots_per_rank
    ascending = np.sort(problem.load, axis=1)
    descending = ascending[:, ::-1]
    best: Floats = np.maximum(known, problem.load.sum(axis=1) / ranks)
    for j in range(slots):
        crowded = descending[:, j * ranks - j : j * ranks + 1].sum(axis=1) if j else descending[:, 0]
        best = np.maximum(best, crowded + ascending[:, : slots - j - 1].sum(axis=1))
    best = np.maximum(best, _crowded(descending, ranks, slots))
    return np.maximum(best, _round_up(best, problem.load, slots))


def _round_up(best: Floats, load: Floats, slots: int) -> Floats:
    """Return the least sum of whole parts that is no less than ``best``, where the loads have a common part.

    Whole numbers have an exact one. Otherwise, and where that is small, one is looked for that the loads are multiples
    of but for a billionth of the largest: they were scaled, or rounded. What a rank may lose by that is taken off.
    """
    whole = ((load == np.rint(load)) & (load < WHOLE)).all(axis=1)
    part = np.zeros(len(load))
    part[whole] = np.gcd.reduce(load[whole].astype(np.int64), axis=1)
    exact = np.ceil(best / np.where(part > 0, part, 1.0) * (1 - 1e-12)) * part
    near, lost = np.zeros(len(load)), 2 * slots * NEAR * load.max(axis=1)
    _find_parts(np.ascontiguousarray(load), near)
    rounded = np.ceil((best - lost) / np.where(near > 0, near, 1.0)) * near - lost
    up: Floats = np.maximum(exact, np.where(near > 0, rounded, 0.0))
    return up


@native
def _find_parts(load, part):
    """Set ``part`` to what all loads of a layer are nearly multiples of, by Euclid's algorithm, or 0 for nothing."""
    for layer in range(len(load)):
        largest = 0.0
        for each in load[layer]:
            largest = max(largest, each)
        common = largest
        for each in load[layer]:
            rest = each
            while rest > LEAST * largest:
                common, rest = rest, abs(common - np.rint(common / rest) * rest)
        if common <= LEAST * largest:
            continue
        common = largest / np.rint(largest / common)
        near = True
        for each in load[layer]:
            near &= abs(each - np.rint(each / common) * common) <= NEAR * largest
        part[layer] = common if near else 0.0


def _crowded(descending: Floats, ranks: int, slots: int) -> Floats:
    """Return the second argument's bound, the best of all k; sums of many are a little less than they are in truth."""
    if slots < 2 or ranks < 2:
        return np.zeros(len(descending))
    sums, lightest = np.cumsum(descending, axis=1), np.cumsum(descending[:, ::-1], axis=1)
    k = np.arange(2, ranks + 1)
    apart = (sums[:, k - 1] + lightest[:, k * (slots - 1) - 1]) / k
    company = lightest[:, slots - 3 : slots - 2] if slots > 2 else 0.0
    together = descending[:, k - 1] + descending[:, k - 2] + company
    best: Floats = np.minimum(apart, together).max(axis=1) * (1 - 1e-12)
    return best


BOUND = Bound(
    name="pigeonhole",
    argument="experts of one replica each crowd some rank, and whole tokens cannot be shared out evenly",
    proof=__doc__,
    domain="no redundant expert: as many slots as experts",
    holds=lambda problem: problem.num_redundant_experts == 0,
    prove=_prove,
    any_shares=True,
    held_up_by=SLOTS,
    begins=True,
)
