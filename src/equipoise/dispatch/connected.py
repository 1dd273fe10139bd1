"""Connected placements: which ranks shares can carry load between, and how far load may drift before they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count, finite
from equipoise.dispatch.best import as_load_of
from equipoise.dispatch.choice import SHARES, choose_shares
from equipoise.errors import InvalidInputError, shown
from equipoise.fixed_point import to_fixed_point
from equipoise.metrics import balancedness
from equipoise.placement import Placement
from equipoise.problem import PlacementProblem
from equipoise.restarts.counter import mix, uniforms
from equipoise.threads import blocks, for_each

__all__ = ["DRIFT", "connect_ranks", "count_components", "describe_connected", "fewest_components", "flexibility"]

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]

DRIFT = 0.2
"""Standard deviation of the log of what loads change by, in the scenarios that placements are connected for."""

SCENARIOS = 8
OWN_SEED = 2**64 - 1  # of these, so that they are not what flexibility is measured on
MOST_DRIFT = 2.0
NO_LIMIT = 1 << 62


def count_components(placement: Placement) -> Int64s:
    """Return into how many components the ranks of each layer fall when experts join the ranks that hold them.

    int64 [layers]; ranks that hold nothing are not counted. With one component, shares can carry load from every rank
    to every other.

    >>> count_components(Placement([[0, 1, 0, 2], [0, 1, 2, 3]], num_ranks=2, num_logical_experts=4)).tolist()
    [1, 2]
    """
    as_instance(placement, Placement, "placement", "a Placement, such as plan.placement")
    found = [_count(row, placement.slots_per_rank) for row in placement.physical_to_logical.tolist()]
    return np.array(found, np.int64)


def _count(slots: list[int], width: int) -> int:
    home: dict[int, int] = {}
    root = {slot // width: slot // width for slot, e in enumerate(slots) if e >= 0}

    def find(rank: int) -> int:
        """Return the lowest rank that a rank is connected with."""
        while root[rank] != rank:
            root[rank] = rank = root[root[rank]]
        return rank

    for slot, e in enumerate(slots):
        if e >= 0:
            root[find(slot // width)] = find(home.setdefault(e, slot // width))
    return sum(find(rank) == rank for rank in root)


def fewest_components(placement: Placement) -> Int64s:
    """Return how few components there can be with the replicas of each layer: a redundant one joins at most two.

    int64 [layers]. Whether load and expert groups let them be so few is another question.
    """
    as_instance(placement, Placement, "placement", "a Placement, such as plan.placement")
    held = placement.physical_to_logical.reshape(placement.num_layers, placement.num_ranks, -1) >= 0
    ranks = held.any(axis=2).sum(axis=1)
    joins = np.maximum(np.minimum(placement.replica_count, ranks[:, None]) - 1, 0).sum(axis=1)
    return np.asarray(np.maximum(ranks - joins, np.minimum(ranks, 1)), np.int64)


def flexibility(
    placement: Placement, load: Any, drift: float = DRIFT, *, samples: int = 8, seed: int = 0, shares: str = "best"
) -> Floats:
    """Return the balancedness of each layer when its load drifts and no weights move.

    Parameters
    ----------
    placement : Placement
    load : array, shape (num_layers, num_logical_experts)
        The load before the drift.
    drift : float, default 0.2
        Standard deviation of the logarithm of the factor by which the load of each expert changes: 0.2 is a drift of
        about 20 %. At most 2. The expert has the same factor in every layer.
    samples : int, default 8
        Drifted loads that are averaged over.
    seed : int, default 0
    shares : str, default "best"
        With the ``"best"`` shares for each drifted load, or with ``"even"`` ones.

    Returns
    -------
    float64 array, shape (num_layers,)
        Mean over the samples of mean / max rank load.

    Raises
    ------
    InvalidInputError
        If an argument breaks its rule.

    Examples
    --------
    >>> placement = Placement([[0, 1, 0, 2]], num_ranks=2, num_logical_experts=3)
    >>> flexibility(placement, [[4, 2, 2]]).round(3).tolist(), flexibility(placement, [[4, 2, 2]], 0).tolist()
    ([1.0], [1.0])
    """
    placement, load = as_load_of(placement, load)
    drift, choose = finite(drift, "drift"), choose_shares(shares)
    if drift > MOST_DRIFT:
        raise InvalidInputError(f"drift is {shown(drift)}; it must be a number from 0 to {MOST_DRIFT}.")
    samples, seed = count(samples, "samples", most=1 << 16), count(seed, "seed", least=0, most=2**64 - 1)
    largest = load.max(axis=1, keepdims=True)
    relative = load / np.where(largest > 0, largest, 1.0)  # drift multiplies, and must not leave float64
    total = np.zeros(placement.num_layers)
    for sample in range(samples):
        moved = relative * _factors(load.shape[1], drift, seed, np.array([sample]))[0]
        found = choose(placement, moved)
        total += balancedness((found if found is not None else placement).rank_load(moved))
    return total / samples


def describe_connected(placement: Placement, load: Floats) -> dict[str, float]:
    """Return what a plan keeps of how flexible it is: the drift, and the mean balancedness after it."""
    after = {kind: round(float(flexibility(placement, load, shares=kind).mean()), 4) for kind in SHARES}
    return {"drift": DRIFT, **after}


def connect_ranks(
    problem: PlacementProblem,
    physical_to_logical: NDArray[np.int32],
    max_gap: float,
    most: Int64s | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.int32], Int64s]:
    """Return the slots after swaps that connect the ranks of each layer, and the number of swaps of each.

    ``physical_to_logical`` int32 [layers, slots] is a placement of ``problem``; its busiest rank gets no more than
    ``max_gap`` busier with even shares. ``most`` int64 [layers] limits the swaps, each of which is two transfers. See
    ``equipoise.dispatch.connect``. The same for the same arguments, whatever the threads and the layers beside one.
    """
    from equipoise.dispatch.connect.numba import connect as swap
    from equipoise.kernels.recount.numba import recount

    layers, cluster = problem.num_layers, problem.cluster
    load = to_fixed_point(problem.load, cluster.num_ranks).astype(np.float64)
    limit = recount(physical_to_logical, load, cluster.num_ranks, 1, 1)[0].max(axis=1) * (1 + max_gap)
    most = np.full(layers, NO_LIMIT) if most is None else most
    ranks_per_node = cluster.ranks_per_node if problem.is_hierarchical else cluster.num_ranks
    table, swaps = np.array(physical_to_logical, np.int32), np.zeros(layers, np.int64)
    factors = _factors(problem.num_logical_experts, DRIFT, OWN_SEED, np.arange(SCENARIOS))

    def work(part: slice) -> None:
        """Connect the ranks of some layers."""
        sizes = cluster.num_ranks, ranks_per_node
        table[part], swaps[part] = swap(table[part], load[part], factors, limit[part], most[part], *sizes)

    for_each(work, blocks(layers, threads), threads)
    worse = np.flatnonzero(swaps > 0)
    worse = worse[_is_worse(physical_to_logical[worse], table[worse], load[worse], cluster.num_ranks)]
    table[worse], swaps[worse] = physical_to_logical[worse], 0
    return table, swaps


def _is_worse(before: NDArray[np.int32], after: NDArray[np.int32], load: Floats, num_ranks: int) -> NDArray[np.bool_]:
    """Whether layers have as many components as before and bear other drifts than those they were made for less well.

    So it can be where spare slots are too few to connect much.
    """
    if not len(load):
        return np.zeros(0, dtype=np.bool_)
    both = [Placement(table, num_ranks, load.shape[1]) for table in (before, after)]
    old, new = (flexibility(placement, load, seed=OWN_SEED - 1) for placement in both)
    worse: NDArray[np.bool_] = (new < old) & (count_components(both[1]) >= count_components(both[0]))
    return worse


def _factors(experts: int, drift: float, seed: int, samples: Int64s) -> Floats:
    """Return by what the load of each expert changes in each sample: float64 [samples, experts], lognormal, nearly.

    The sum of twelve uniform numbers is nearly normal, and ((1 + x / 64) / (1 - x / 64)) ** 32 nearly exp(x); both have
    the same bits on every processor, which the exponential functions of libraries do not promise.
    """
    word = mix(mix(np.array([seed & 0xFFFFFFFF], np.uint64)) ^ np.uint64(seed >> 32))
    draws = (12 * samples[:, None] + np.arange(12)).reshape(-1)
    drawn = uniforms(word, draws, experts)[0].reshape(len(samples), 12, experts)
    step = drift * (drawn.sum(axis=1) - 6.0)
    factors: Floats = (1.0 + step / 64.0) / (1.0 - step / 64.0)
    for _ in range(5):
        factors = factors * factors
    return factors
