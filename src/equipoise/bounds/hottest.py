"""Each count of the hottest expert leaves its ranks too little room, or the others too few ranks.

The proof, and the contract of the code and of its plain counterpart in ``hottest_reference.py``.

    bound(load, low, achieved, num_ranks, slots_per_rank) -> float64 [layers]

``load`` float64 [layers, experts], each row descending; ``low`` float64 [layers], bounds known already; the result is
never less. ``achieved`` float64 [layers], what some placement is known to reach, infinite where none is: the result is
the same.

Let T be the busiest rank and 0 < theta < T / 2. Call a replica large if it weighs more than T - theta, and small if at
most theta. A rank with a large replica has no second one (two weigh more than T), and its other S - 1
replicas weigh less than theta together, so they are all small. Let L replicas be large. Then

between     what is neither large nor small lies on the other R - L ranks: it weighs at most (R - L) T;
company     the small ones are (S - 1) L at least;
elsewhere   for every phi > 0, the S (R - L) slots of the other ranks carry at most phi each, and besides no more than
            what replicas that are not large weigh above phi. The rest lies with the large replicas, on ranks that
            carry at most T each. So large replicas weigh w, the others min(replica, phi), and together these are no
            more than L T + S (R - L) phi.

Each is a sum over experts with a limit. Give every slot a price mu besides, and let each expert pay least: it keeps its
replicas large with some count, or takes the least that makes them not large, or (where that is cheaper)
small; more only adds. If the payments exceed the limit plus mu P, no counts that fill the P slots satisfy the
inequality.

The hottest expert pays for the count that it has. Every count is a case of its own, and T is impossible if every case
is refuted: each with theta just above the room T - w / c that its replicas leave, so that they are large, or a little
more. Counts that leave the others fewer slots than they need for T are none. Duplicates on a rank are allowed
throughout.

For each T the kernel tries a few theta and phi, and bisects on T. Each refuted T is a bound by itself, so the coarse
grids cost tightness, never truth. The price mu is found, not guessed: an expert pays the least of several amounts that
are linear in mu, so by how much the payments exceed the limit is concave in mu, and bisecting on its slope leads to the
price that refutes most. Any price would be a proof.

Joint descent asks for this bound too, of layers that one expert dominates: what no plan can reach is no target.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds.bound import SLOTS, Bound, Floats, open_beyond
from equipoise.kernels.native import allocating, internal, native
from equipoise.problem import PlacementProblem
from equipoise.threads import for_each

__all__ = ["BOUND", "DOMINATES", "bound"]

DOMINATES = 4
"""Where the hottest expert has less than one part in so many of the load, its counts prove next to nothing."""

HALVINGS = 11
MOST_CASES = 64  # counts of the hottest expert; where there are more, it has slots to spare
ROOMS = np.array([1.0, 1.15, 1.3, 1.5, 1.7, 2.0, 2.5])  # theta, of what the hottest expert's replicas leave
BETWEEN, COMPANY, ELSEWHERE = 0, 1, 2
KINDS = np.array([BETWEEN, COMPANY, *[ELSEWHERE] * 7])  # what is tried, in order
UNITS = np.array([1.0, 1.0, 1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2])  # and with which phi, of theta
LEAST_PRICE, MOST_PRICE = np.array([0.0, 1.0, 0.0]), np.array([4.0, 4.0, 2.0])  # of a slot, in theta, 1 and phi
PRICES = 8
MARGIN = 1e-9  # relative; sizes this close to a threshold count as whatever weakens the bound


class Counts(NamedTuple):
    """How many slots keep each expert's replicas small enough, float64 [experts].

    fit: for T. level: not large. most: the most with which they are large. light: small. Not set for experts that are
    small with one replica, which come last.
    """

    fit: Any
    level: Any
    most: Any
    light: Any


class Case(NamedTuple):
    """One count of the hottest expert, to be refuted.

    load float64 [experts], descending; num_ranks and slots of each; busiest, T; replicas, of the hottest expert, which
    are large; counts, of the others; above, how many experts are above theta.
    """

    load: Any
    num_ranks: Any
    slots: Any
    busiest: Any
    replicas: Any
    counts: Any
    above: Any


def bound(
    load: NDArray[np.float64],
    low: NDArray[np.float64],
    achieved: NDArray[np.float64],
    num_ranks: int,
    slots_per_rank: int,
) -> NDArray[np.float64]:
    """Raise ``low`` as far as the argument carries; see the page's contract."""
    raised: NDArray[np.float64] = low.copy()
    if slots_per_rank > 1:
        for_each(
            lambda layer: _raise(load[layer], achieved[layer], num_ranks, slots_per_rank, raised[layer : layer + 1]),
            range(len(low)),
        )
    return raised


@native
def _raise(load, achieved, num_ranks, slots, raised):
    """Raise the bound of one layer, whose ``load`` descends, as far as the argument carries."""
    low = raised[0]
    if load[0] <= 0.0:
        return
    least = low * (1.0 + 0.25 / 2**HALVINGS)
    if least >= achieved or not _impossible(load, num_ranks, slots, least):
        return  # the least that could be proved is not, so that nothing is: one look instead of many
    high = 1.25 * low
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if middle < achieved and _impossible(load, num_ranks, slots, middle):
            low = middle
        else:
            high = middle
    raised[0] = low


@allocating
def _impossible(load, num_ranks, slots, busiest):
    """Whether every count of the hottest expert is refuted for no rank above ``busiest``."""
    counts = Counts(np.empty(len(load)), np.empty(len(load)), np.empty(len(load)), np.empty(len(load)))
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
                above = _set_counts(load, busiest, theta, counts)
                refuted = _refuted(Case(load, num_ranks, slots, busiest, count, counts, above), theta)
        if not refuted:
            return False
    return True


@internal
def _slots(load, largest, margin):
    """Return how many slots keep the replicas of ``load`` at ``largest``."""
    return max(1.0, np.ceil(load / largest * margin))


@internal
def _set_counts(load, busiest, theta, counts):
    """Set ``counts`` for one threshold; return how many experts are above it."""
    above = 1
    while above < len(load) and load[above] > theta:
        e = above
        counts.fit[e] = _slots(load[e], busiest, 1.0 - MARGIN)
        counts.level[e] = _slots(load[e], busiest - theta, 1.0 - MARGIN)
        counts.most[e] = _slots(load[e], busiest - theta, 1.0 + MARGIN) - 1.0
        counts.light[e] = max(_slots(load[e], theta, 1.0 - MARGIN), counts.level[e])
        above += 1
    return above


@internal
def _refuted(case, theta):
    """Whether some price refutes a case for one threshold, by one of the three inequalities."""
    for i in range(len(KINDS)):  # noqa: SIM110  (a loop that numba compiles to a few instructions)
        if _some_price(case, KINDS[i], 1.0 if KINDS[i] == COMPANY else UNITS[i] * theta):
            return True
    return False


@internal
def _some_price(case, kind, unit):
    """Whether the payments exceed their limit for some price of a slot; ``unit`` is theta, 1 or phi, by kind.

    By how much they do is concave in the price, as each expert pays the least of what is linear in it. So bisect on the
    slope, and stop where even that cannot lead above the limit.
    """
    load, num_ranks, busiest, below = case.load, case.num_ranks, case.busiest, len(case.load) - case.above
    total = 1.0 * num_ranks * case.slots
    limit, tail = 0.0, 0.0
    if kind == BETWEEN:
        limit = num_ranks * busiest
    elif kind == ELSEWHERE:
        limit = unit * total
        for e in range(case.above, len(load)):
            tail += min(load[e], unit)
    low, high = LEAST_PRICE[kind] * unit, MOST_PRICE[kind] * unit
    for _ in range(PRICES):
        mu = 0.5 * (low + high)
        paid, used = _pay(case, kind, unit, mu)
        paid += tail + mu * below - (below if kind == COMPANY else 0.0)
        slope = used + below - total
        over = paid - mu * total - limit
        if over > MARGIN * (limit + mu * total + num_ranks * busiest * (kind == ELSEWHERE)):
            return True
        if slope > 0.0:
            low = mu
            if over + slope * (high - mu) <= 0.0:
                return False
        else:
            high = mu
            if over - slope * (mu - low) <= 0.0:
                return False
    return False


@internal
def _pay(case, kind, phi, mu):
    """Return what experts above theta pay at the least, and for how many slots."""
    load, counts = case.load, case.counts
    large = case.busiest  # what one large replica pays, besides its slot
    if kind == COMPANY:
        large = case.slots - 1.0
    elif kind == ELSEWHERE:
        large = case.slots * phi - case.busiest  # and the load itself
    paid = case.replicas * (large + mu) + (load[0] if kind == ELSEWHERE else 0.0)
    used = 1.0 * case.replicas
    for e in range(1, case.above):
        fit, level, light = counts.fit[e], counts.level[e], counts.light[e]
        least, taken = level * mu, level
        if kind == BETWEEN and light > level:
            least += load[e]
            if light * mu < least:
                least, taken = light * mu, light
        elif kind == COMPANY:
            if light * (mu - 1.0) < least:
                least, taken = light * (mu - 1.0), light
        elif kind == ELSEWHERE:
            least += min(load[e], level * phi)
        own = load[e] if kind == ELSEWHERE else 0.0
        for number in (fit, counts.most[e]):
            if fit <= counts.most[e] and own + number * (large + mu) < least:
                least, taken = own + number * (large + mu), number
        paid += least
        used += taken
    return paid, used


def _is_dominated(problem: PlacementProblem, known: Floats, achieved: Floats) -> NDArray[np.bool_]:
    dominated: NDArray[np.bool_] = DOMINATES * problem.load.max(axis=1) >= problem.load.sum(axis=1)
    return dominated


def _worth(problem: PlacementProblem, known: Floats, achieved: Floats) -> NDArray[np.bool_]:
    """It is quick and proves most where one expert dominates: there it is asked even where little is left to prove."""
    asked = problem, known, achieved
    return open_beyond(0.005)(*asked) | (open_beyond(0.001)(*asked) & _is_dominated(*asked))


def _prove(problem: PlacementProblem, known: Floats, achieved: Floats) -> Floats:
    descending = -np.sort(-problem.load, axis=1)
    return bound(descending, known, achieved, problem.cluster.num_ranks, problem.cluster.slots_per_rank)


BOUND = Bound(
    name="hottest",
    argument="each count of the hottest expert leaves its ranks too little room, or the others too few ranks",
    proof=__doc__,
    domain="two slots a rank or more",
    holds=lambda problem: problem.cluster.slots_per_rank > 1,
    prove=_prove,
    held_up_by=SLOTS,
    worth=_worth,
    guides=_is_dominated,
)
