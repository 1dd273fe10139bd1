"""The best possible placement, by trying them all: slow, and right by inspection.

It shares no code with the solver or the bounds, so that it can judge both.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import count, flag
from equipoise.errors import InvalidInputError
from equipoise.limits import MOST_CELLS
from equipoise.problem import PlacementProblem, as_problem

__all__ = ["brute_force_optimum", "brute_force_time", "every_share"]

Floats = NDArray[np.float64]
LIMIT = 200_000  # multisets of rank contents that are tried before giving up


def brute_force_optimum(problem: PlacementProblem, *, allow_duplicates: bool = True) -> Floats:
    """Return the smallest possible load of the busiest rank, over all replica counts and all placements.

    Parameters
    ----------
    problem : PlacementProblem
        A tiny one: about five experts and nine slots. More layers cost little.
    allow_duplicates : bool, default True
        Whether a rank may hold two replicas of one expert.

    Returns
    -------
    optimum : float64 array, shape (num_layers,)
        Tokens per window. Infinite where no placement is allowed.

    Raises
    ------
    InvalidInputError
        If there are too many placements to try.

    Examples
    --------
    >>> from equipoise import Cluster
    >>> problem = PlacementProblem([[4.0, 2.0, 1.0], [9.0, 0.0, 0.0]], Cluster(num_ranks=2, slots_per_rank=2))
    >>> brute_force_optimum(problem).tolist()
    [4.0, 4.5]
    """
    cluster, load = as_problem(problem).cluster, problem.load
    if not problem.is_hierarchical:
        return _optimum(load, cluster.num_ranks, cluster.slots_per_rank, allow_duplicates)
    assert problem.num_expert_groups is not None
    groups, nodes = problem.num_expert_groups, cluster.num_nodes
    by_group = load.reshape(len(load), groups, -1)
    of_node = {
        chosen: _optimum(
            by_group[:, chosen, :].reshape(len(load), -1),
            cluster.ranks_per_node,
            cluster.slots_per_rank,
            allow_duplicates,
        )
        for chosen in combinations(range(groups), groups // nodes)
    }
    ways = [np.max([of_node[node] for node in way], axis=0) for way in _groupings(range(groups), groups // nodes)]
    best: Floats = np.min(ways, axis=0)
    return best


def brute_force_time(problem: PlacementProblem) -> Floats:
    """Return the least expected time of the busiest rank, over all counts, all placements and all active sets.

    Shares are even among the active replicas of an expert, and a rank may hold two of them.

    Parameters
    ----------
    problem : PlacementProblem
        A tiny one with a latency model, not hierarchical: about four experts and six slots. More layers cost little.

    Returns
    -------
    optimum : float64 array, shape (num_batch_sizes, num_layers)
        Microseconds.

    Raises
    ------
    InvalidInputError
        If there is no latency model, the problem is hierarchical, or there are too many active sets to try.

    Examples
    --------
    >>> from equipoise import Cluster, LatencyModel
    >>> model = LatencyModel(fixed=10, floor=5, base=2, per_token=0.1)
    >>> problem = PlacementProblem([[4.0, 4.0]], Cluster(2, 2), latency=model, routed_per_step=1000)
    >>> brute_force_time(problem).round(3).tolist()
    [[62.0]]
    """
    latency = as_problem(problem).latency
    if latency is None or problem.is_hierarchical:
        raise InvalidInputError("problem has no latency model, or is hierarchical; pass a global one with latency=....")
    held = _every_active_set(problem.num_logical_experts, problem.cluster.num_ranks, problem.cluster.slots_per_rank)
    count = held.sum(axis=1).astype(np.int64)
    best = np.empty((len(problem.batch_sizes), problem.num_layers))
    for batch, size in enumerate(problem.batch_sizes):
        for layer, mean in enumerate(problem.mean_tokens(size)):
            most = np.arange(1, count.max() + 1)
            each = latency.expected_slot_time(mean[:, None] / most[None, :])  # by expert and active replicas
            cost = each[np.arange(len(mean))[None, :], count - 1]
            best[batch, layer] = latency.fixed + (held * cost[:, None, :]).sum(axis=2).max(axis=1).min()
    return best


@lru_cache(maxsize=64)
def _every_active_set(num_experts: int, num_ranks: int, slots_per_rank: int) -> Floats:
    """Return for every active set how many active replicas of each expert each rank holds [sets, ranks, experts]."""
    sizes = range(slots_per_rank + 1)
    contents = [each for size in sizes for each in combinations_with_replacement(range(num_experts), size)]
    number = _choose(len(contents) + num_ranks - 1, num_ranks)
    if number > LIMIT or number * num_ranks * num_experts > MOST_CELLS:
        raise InvalidInputError(
            f"{num_experts} experts on {num_ranks} ranks of {slots_per_rank} slots have more active sets than the "
            f"{LIMIT:,} that brute force tries at most. Use a smaller instance."
        )
    held = np.array(
        [np.bincount(np.array(content, np.int64), minlength=num_experts) for content in contents], np.float64
    )
    index = np.array(list(combinations_with_replacement(range(len(contents)), num_ranks)), dtype=np.int64)
    sets = held[index.reshape(-1, num_ranks)]
    complete: Floats = sets[(sets.sum(axis=1) > 0).all(axis=1)]
    complete.setflags(write=False)
    return complete


def every_share(num_experts: int, num_ranks: int, slots_per_rank: int, allow_duplicates: bool = True) -> Floats:
    """Return every placement that holds all experts, as the share of each expert's load that each rank carries.

    Ranks are interchangeable here, and so are slots of a rank: each placement appears once.

    Returns
    -------
    share : float64 array, shape (num_placements, num_ranks, num_experts)

    Examples
    --------
    >>> every_share(2, 1, 3).tolist()  # two ways to fill three slots of one rank
    [[[1.0, 1.0]], [[1.0, 1.0]]]
    """
    named = {"num_experts": num_experts, "num_ranks": num_ranks, "slots_per_rank": slots_per_rank}
    shape = [count(value, name, most=LIMIT) for name, value in named.items()]
    return _every_share(*shape, flag(allow_duplicates, "allow_duplicates"))


@lru_cache(maxsize=256)
def _every_share(num_experts: int, num_ranks: int, slots_per_rank: int, allow_duplicates: bool) -> Floats:
    items = num_experts + slots_per_rank - 1 if allow_duplicates else num_experts
    number = _choose(_choose(items, slots_per_rank) + num_ranks - 1, num_ranks)
    if number > LIMIT or number * num_ranks * num_experts > MOST_CELLS:
        raise InvalidInputError(
            f"{num_experts} experts on {num_ranks} ranks of {slots_per_rank} slots can be placed in more ways than the "
            f"{LIMIT:,} that brute force tries at most. Use a smaller instance."
        )
    choose = combinations_with_replacement if allow_duplicates else combinations
    contents = list(choose(range(num_experts), slots_per_rank))
    held = np.array([np.bincount(content, minlength=num_experts) for content in contents], dtype=np.float64)
    held = held.reshape(len(contents), num_experts)
    index = np.array(list(combinations_with_replacement(range(len(contents)), num_ranks)), dtype=np.int64)
    placements = held[index.reshape(-1, num_ranks)]
    replicas = placements.sum(axis=1, keepdims=True)
    complete = (replicas > 0).all(axis=(1, 2))
    share: Floats = placements[complete] / replicas[complete]
    share.setflags(write=False)
    return share


def _choose(items: int, number: int) -> int:
    """Return in how many ways ``number`` of the items can be chosen, or ``LIMIT + 1`` if there are more."""
    ways = 1
    for i in range(min(number, items - number)):
        ways = ways * (items - i) // (i + 1)
        if ways > LIMIT:
            return LIMIT + 1
    return ways if number <= items else 0


def _optimum(load: Floats, num_ranks: int, slots_per_rank: int, allow_duplicates: bool) -> Floats:
    share = every_share(load.shape[1], num_ranks, slots_per_rank, allow_duplicates)
    best = np.empty(len(load))
    for layer, row in enumerate(load):
        best[layer] = (share @ row).max(axis=1).min(initial=np.inf)
    return best


def _groupings(groups: range | tuple[int, ...], size: int) -> list[list[tuple[int, ...]]]:
    """Return every way to split ``groups`` into sets of ``size``."""
    if not groups:
        return [[]]
    first, rest = groups[0], tuple(groups[1:])
    ways = []
    for others in combinations(rest, size - 1):
        left = tuple(group for group in rest if group not in others)
        ways += [[(first, *others), *way] for way in _groupings(left, size)]
    return ways
