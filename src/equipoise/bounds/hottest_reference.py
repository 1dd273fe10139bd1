"""Counts of the hottest expert refuted one by one, in plain Python: the proof of ``hottest.py``, line by line.

Every threshold and every argument is tried at every price, whatever is known already; what a placement is known to
reach is not looked at, for no T above it can be refuted.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds.hottest import (
    BETWEEN,
    COMPANY,
    ELSEWHERE,
    HALVINGS,
    KINDS,
    LEAST_PRICE,
    MARGIN,
    MOST_CASES,
    MOST_PRICE,
    PRICES,
    ROOMS,
    UNITS,
)

__all__ = ["bound"]


class Case(NamedTuple):
    """One count of the hottest expert, for no rank above ``busiest``: what is to be refuted."""

    load: list[float]
    num_ranks: int
    slots_per_rank: int
    busiest: float
    replicas: int


def bound(
    load: NDArray[np.float64],
    low: NDArray[np.float64],
    achieved: NDArray[np.float64],
    num_ranks: int,
    slots_per_rank: int,
) -> NDArray[np.float64]:
    """Raise ``low`` as far as the argument carries; see the contract of ``equipoise.bounds.hottest``."""
    layers = zip(load.tolist(), low.tolist(), strict=True)
    return np.array([_raise(row, known, num_ranks, slots_per_rank) for row, known in layers])


def _raise(load: list[float], low: float, num_ranks: int, slots_per_rank: int) -> float:
    """Return the bound of one layer: bisect on T up to a quarter above ``low``, if the least of a step is refuted."""
    shape = num_ranks, slots_per_rank
    if slots_per_rank == 1 or load[0] == 0 or not _impossible(load, *shape, low * (1 + 0.25 / 2**HALVINGS)):
        return low
    high = 1.25 * low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _impossible(load, *shape, middle):
            low = middle
        else:
            high = middle
    return low


def _impossible(load: list[float], num_ranks: int, slots_per_rank: int, busiest: float) -> bool:
    """Whether every count of the hottest expert that leaves the others enough slots is refuted."""
    least, *others = (_slots(w, busiest) for w in load)
    most = num_ranks * slots_per_rank - sum(others)
    if most - least >= MOST_CASES:
        return False
    cases = [Case(load, num_ranks, slots_per_rank, busiest, count) for count in range(int(least), int(most) + 1)]
    return all(any(_refuted(case, theta) for theta in _thetas(case)) for case in cases)


def _slots(load: float, largest: float, margin: float = 1 - MARGIN) -> float:
    """Return how many slots keep the replicas of ``load`` at ``largest``."""
    return max(1.0, float(ceil(load / largest * margin)))


def _thetas(case: Case) -> list[float]:
    """Return the thresholds that are tried: above the room that the hottest replicas leave, below T / 2."""
    room = max(case.busiest - case.load[0] / case.replicas, 0.0) * (1 + MARGIN) + case.busiest * 1e-12
    return [theta for theta in (ROOMS * room).tolist() if theta < case.busiest / 2 * (1 - MARGIN)]


def _refuted(case: Case, theta: float) -> bool:
    """Whether one of the inequalities is refuted at some price of a slot."""
    units = (1.0 if kind == COMPANY else unit * theta for kind, unit in zip(KINDS, UNITS.tolist(), strict=True))
    return any(_some_price(case, theta, int(kind), unit) for kind, unit in zip(KINDS, units, strict=True))


def _some_price(case: Case, theta: float, kind: int, unit: float) -> bool:
    """Whether the payments exceed what they may be for one of the prices that bisecting on their slope comes to."""
    total, level = float(case.num_ranks * case.slots_per_rank), case.num_ranks * case.busiest
    small = [w for w in case.load if w <= theta]  # one replica each
    tail = 0.0
    for w in small:
        tail += min(w, unit) if kind == ELSEWHERE else 0.0
    limit = {BETWEEN: level, COMPANY: 0.0, ELSEWHERE: unit * total}[kind]
    low, high = float(LEAST_PRICE[kind]) * unit, float(MOST_PRICE[kind]) * unit
    for _ in range(PRICES):
        mu = (low + high) / 2
        paid, used = _pay(case, theta, kind, unit, mu)
        paid += tail + mu * len(small) - (len(small) if kind == COMPANY else 0)
        if paid - mu * total - limit > MARGIN * (limit + mu * total + (level if kind == ELSEWHERE else 0.0)):
            return True
        if used + len(small) > total:
            low = mu
        else:
            high = mu
    return False


def _pay(case: Case, theta: float, kind: int, phi: float, mu: float) -> tuple[float, float]:
    """Return what experts above ``theta`` pay at the least, and for how many slots; of equals the first choice."""
    slots, busiest = case.slots_per_rank, case.busiest
    one = {BETWEEN: busiest, COMPANY: slots - 1.0, ELSEWHERE: slots * phi - busiest}[kind]  # a large replica pays
    own = [w if kind == ELSEWHERE else 0.0 for w in case.load]  # and so does its expert, besides
    paid, used = case.replicas * (one + mu) + own[0], float(case.replicas)
    for w, whole in zip(case.load[1:], own[1:], strict=True):
        if w <= theta:
            continue
        fit, level = _slots(w, busiest), _slots(w, busiest - theta)
        most, light = _slots(w, busiest - theta, 1 + MARGIN) - 1, max(_slots(w, theta), level)
        between = w if kind == BETWEEN and light > level else min(w, level * phi) if kind == ELSEWHERE else 0.0
        choices = [(level * mu + between, level)]  # not large
        if kind != ELSEWHERE:
            choices.append((light * (mu - 1 if kind == COMPANY else mu), light))  # small
        if fit <= most:
            choices += [(whole + count * (one + mu), count) for count in (fit, most)]  # large
        least, count = min(choices, key=lambda choice: choice[0])
        paid += least
        used += count
    return paid, used
