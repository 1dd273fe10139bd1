"""Large replicas need small company, and slots make only so much of it. The proof, and the contract of the code.

    bound(load, low, achieved, num_ranks, slots_per_rank) -> float64 [layers]

``load`` float64 [layers, experts]; ``low`` float64 [layers], bounds known already; the result is never less.
``achieved`` float64 [layers], what some placement is known to reach, infinite where none is: the result is the same.

Let T be the busiest rank and 0 < theta <= T / 2. Call a replica large if it weighs more than T - theta, and small if at
most theta. A rank with a large replica has no second one (two weigh more than T), and its other S - 1
replicas weigh less than theta together, so they are all small. Therefore (S - 1) * large <= small, counted over
the layer. Give each large replica the price S - 1, each small one -1, and every slot a further price mu: an
expert with load w pays least with one of three counts, the least that T allows, the least that
makes its replicas not large, or the least that makes them small (for mu >= 1 more only adds). If the
least payments of all experts add up to more than mu * P, no counts that fill the P slots satisfy the
inequality, and T is impossible. Duplicates on a rank are allowed throughout.

The kernel tries a grid of theta, each a share of T, and a few mu, and for each theta halves a grid of T, from the
best that another theta has refuted on. Each refuted T is a bound by itself, so the coarse grids cost tightness, never
truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds.bound import SLOTS, Bound, Floats, open_beyond
from equipoise.kernels.native import allocating, internal, native
from equipoise.problem import PlacementProblem
from equipoise.threads import for_each, num_threads

__all__ = ["BOUND", "bound"]

STEPS, REACH = 512, 0.25  # the bound is raised in so many steps, at most by so much
THETAS = 24
COARSE_TO_FINE = np.array([(7 * k + 15) % THETAS + 1 for k in range(THETAS)])  # neighbours follow after all others
UNIT, SLOT_PRICES = 4, np.array([4, 5, 6, 8, 12])  # prices in quarters
LIGHTEST = 5  # slots that make small what is not large anyway; to have more of them pays for no price
NEVER, MANY = np.int64(2**62), 2.0**32
MARGIN = 1e-9  # relative; sizes this close to a threshold count as whatever weakens the bound


def bound(
    load: NDArray[np.float64],
    low: NDArray[np.float64],
    achieved: NDArray[np.float64],
    num_ranks: int,
    slots_per_rank: int,
) -> NDArray[np.float64]:
    """Raise ``low`` as far as the argument carries; see the page's contract."""
    raised: NDArray[np.float64] = low.copy()
    if slots_per_rank > 1 and len(low):
        descending = -np.sort(-load, axis=1)
        parts = min(2 * num_threads(), len(low))
        edges = [len(low) * part // parts for part in range(parts + 1)]

        def raise_part(part: int) -> None:
            """Raise the bounds of some layers."""
            block = slice(edges[part], edges[part + 1])
            _raise(descending[block], achieved[block], num_ranks, slots_per_rank, raised[block])

        for_each(raise_part, range(parts))
    return raised


@native
def _raise(load, achieved, num_ranks, slots, raised):
    """Raise the bounds of some layers, as far as the theta carries that carries farthest.

    Most theta fail at one step more than the best so far, which is all that is asked of them; the others halve what is
    left of the steps.
    """
    for layer in range(len(load)):
        if load[layer, 0] <= 0.0:
            continue
        low, step, best = raised[layer], REACH / STEPS * raised[layer], 0
        for k in COARSE_TO_FINE:
            proved, failed, probe = best, STEPS, best + 1
            while failed - proved > 1:
                busiest = low + step * probe
                if busiest < achieved[layer] and _impossible(load[layer], num_ranks, slots, busiest, k):
                    proved = probe
                elif proved == best:
                    break
                else:
                    failed = probe
                probe = (proved + failed) // 2
            best = proved
        raised[layer] = low + step * best


@allocating
def _impossible(load, num_ranks, slots, busiest, k):
    """Whether theta number ``k`` and some slot price refute that no rank exceeds ``busiest``; ``load`` descends."""
    theta = busiest * k / (2.0 * THETAS)
    fit_share, level_share = (1.0 - MARGIN) / busiest, (1.0 - MARGIN) / (busiest - theta)
    light_share = (1.0 - MARGIN) / theta
    paid = np.zeros(len(SLOT_PRICES), np.int64)
    e = 0
    while e < len(load) and load[e] * level_share > 1.0:  # these may be large
        fit, level, light = _slots(load[e], fit_share), _slots(load[e], level_share), _slots(load[e], light_share)
        for p in range(len(SLOT_PRICES)):
            price = SLOT_PRICES[p]
            large = ((slots - 1) * UNIT + price) * fit if level > fit else NEVER
            paid[p] += min(min(large, price * level), (price - UNIT) * light)
        e += 1
    for light in range(LIGHTEST, 0, -1):  # the others may be small or not, and most of them are
        end = _first_that_fits(load, e, light - 1, light_share) if light > 1 else len(load)
        for p in range(len(SLOT_PRICES)):
            price = SLOT_PRICES[p]
            paid[p] += (end - e) * min(price, (price - UNIT) * light)
        e = end
    refuted = False
    for p in range(len(SLOT_PRICES)):
        refuted |= paid[p] > SLOT_PRICES[p] * num_ranks * slots
    return refuted


@internal
def _slots(load, share):
    """Return how many slots an expert needs, at the least, for no replica to exceed what ``share`` is one part of."""
    return np.int64(min(max(1.0, np.ceil(load * share)), MANY))


@internal
def _first_that_fits(load, start, slots, share):
    """Return the first expert from ``start`` on that needs no more than ``slots`` slots."""
    low, high = start, len(load)
    while low < high:
        middle = (low + high) // 2
        if load[middle] * share > slots:
            low = middle + 1
        else:
            high = middle
    return low


def _prove(problem: PlacementProblem, known: Floats, achieved: Floats) -> Floats:
    return bound(problem.load, known, achieved, problem.cluster.num_ranks, problem.cluster.slots_per_rank)


BOUND = Bound(
    name="threshold",
    argument="large replicas need small company, and slots make only so much of it",
    proof=__doc__,
    domain="two slots a rank or more",
    holds=lambda problem: problem.cluster.slots_per_rank > 1,
    prove=_prove,
    held_up_by=SLOTS,
    worth=open_beyond(0.005),
)
