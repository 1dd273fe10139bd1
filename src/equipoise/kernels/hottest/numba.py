"""The bound from the hottest expert's counts, native; see the folder's page for the proof."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.native import native
from equipoise.threads import for_each

__all__ = ["bound"]

HALVINGS = 9
MOST_CASES = 64  # counts of the hottest expert; where there are more, it has slots to spare
ROOMS = np.array([1.0, 1.3, 1.7, 2.5])  # theta, of what the hottest expert's replicas leave
PHIS = np.array([1.0, 0.65, 0.4, 0.25])  # of theta
BETWEEN_PRICES = np.array([0.0, 0.5, 1.0, 1.5, 2.0])  # of a slot, in theta: two halves of 2 theta are small
COMPANY_PRICES = np.array([1.0, 1.25, 1.5, 2.0, 3.0])
ELSEWHERE_PRICES = np.array([0.0, 0.5, 1.0])  # in phi
MARGIN = 1e-9  # relative; sizes this close to a threshold count as whatever weakens the bound


def bound(
    load: NDArray[np.float64],
    low: NDArray[np.float64],
    achieved: NDArray[np.float64],
    num_ranks: int,
    slots_per_rank: int,
) -> NDArray[np.float64]:
    """Raise ``low`` as far as the argument carries; see the folder's contract."""
    raised: NDArray[np.float64] = low.copy()
    if slots_per_rank > 1:
        for_each(
            lambda layer: _raise(load[layer], achieved[layer], num_ranks, slots_per_rank, raised[layer : layer + 1]),
            range(len(low)),
        )
    return raised


@native
def _raise(load, achieved, num_ranks, slots, raised):  # type: ignore[no-untyped-def]
    if load[0] <= 0.0:
        return
    low, high = raised[0], 1.25 * raised[0]
    if not _impossible(load, num_ranks, slots, low * (1.0 + 0.25 / 2**HALVINGS)):
        return  # the least that could be proved is not, so that nothing is: one look instead of many
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if middle < achieved and _impossible(load, num_ranks, slots, middle):
            low = middle
        else:
            high = middle
    raised[0] = low


@native
def _impossible(load, num_ranks, slots, busiest):  # type: ignore[no-untyped-def]
    """Whether every count of the hottest expert is refuted for no rank above ``busiest``."""
    left = num_ranks * slots
    for e in range(1, len(load)):
        left -= np.int64(_slots(load[e], busiest, 1.0 - MARGIN))
    least = np.int64(_slots(load[0], busiest, 1.0 - MARGIN))
    if left - least >= MOST_CASES:
        return False
    for count in range(least, left + 1):
        room = max(busiest - load[0] / count, 0.0) * (1.0 + MARGIN) + busiest * 1e-12
        refuted = False
        for more in ROOMS:
            theta = more * room
            if theta < 0.5 * busiest * (1.0 - MARGIN) and not refuted:
                refuted = _refuted(load, num_ranks, slots, busiest, count, theta)
        if not refuted:
            return False
    return True


@native
def _slots(load, largest, margin):  # type: ignore[no-untyped-def]
    """Return how many slots keep the replicas of ``load`` at ``largest``."""
    return max(1.0, np.ceil(load / largest * margin))


@native
def _refuted(load, num_ranks, slots, busiest, count, theta):  # type: ignore[no-untyped-def]
    """Whether some price refutes ``count`` replicas of the hottest expert, which are large."""
    total = 1.0 * num_ranks * slots
    for price in BETWEEN_PRICES:
        mu = price * theta
        if _pay_between(load, busiest, count, theta, mu) > (num_ranks * busiest + mu * total) * (1.0 + MARGIN):
            return True
    for price in COMPANY_PRICES:
        if _pay_company(load, busiest, count, theta, slots, price) > price * total * (1.0 + MARGIN):
            return True
    for share in PHIS:
        phi = share * theta
        for price in ELSEWHERE_PRICES:
            mu = price * phi
            limit = (phi + mu) * total + MARGIN * num_ranks * busiest
            if _pay_elsewhere(load, busiest, count, theta, slots, phi, mu) > limit:
                return True
    return False


@native
def _pay_between(load, busiest, count, theta, mu):  # type: ignore[no-untyped-def]
    paid = count * (busiest + mu)
    for e in range(1, len(load)):
        if load[e] <= theta:  # and so are all that follow
            return paid + (len(load) - e) * mu
        level = _slots(load[e], busiest - theta, 1.0 - MARGIN)
        light = _slots(load[e], theta, 1.0 - MARGIN)
        least = min(load[e] + level * mu, max(light, level) * mu) if light > level else level * mu
        fit = _slots(load[e], busiest, 1.0 - MARGIN)
        paid += min(least, fit * (busiest + mu)) if fit < level else least
    return paid


@native
def _pay_company(load, busiest, count, theta, slots, price):  # type: ignore[no-untyped-def]
    paid = count * (slots - 1.0 + price)
    for e in range(1, len(load)):
        if load[e] <= theta:
            return paid + (len(load) - e) * (price - 1.0)
        level = _slots(load[e], busiest - theta, 1.0 - MARGIN)
        light = _slots(load[e], theta, 1.0 - MARGIN)
        least = min(level * price, light * (price - 1.0))
        fit = _slots(load[e], busiest, 1.0 - MARGIN)
        paid += min(least, fit * (slots - 1.0 + price)) if fit < level else least
    return paid


@native
def _pay_elsewhere(load, busiest, count, theta, slots, phi, mu):  # type: ignore[no-untyped-def]
    of_slot = busiest - slots * phi - mu  # what a large replica takes off
    paid = load[0] - count * of_slot
    for e in range(1, len(load)):
        level = _slots(load[e], busiest - theta, 1.0 - MARGIN)
        least = min(load[e], level * phi) + level * mu
        fit, most = _slots(load[e], busiest, 1.0 - MARGIN), _slots(load[e], busiest - theta, 1.0 + MARGIN) - 1.0
        if fit <= most:
            least = min(least, load[e] - fit * of_slot, load[e] - most * of_slot)
        paid += least
    return paid
