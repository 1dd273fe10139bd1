"""The signatures the field already calls: a drop-in for DeepSeek's EPLB module.

    from equipoise.eplb import rebalance_experts
    phy2log, log2phy, logcnt = rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus)

Positional arguments, shapes, int64 results, padding and preconditions are those of the original, so
its words stay here: a *pack* or *gpu* is an EP rank, a *physical expert* the weights in a slot. Weights may be torch
tensors on any device or numpy arrays, integer or float; results come back as the same kind, on the
same device. Counts that do not fit raise ``PreconditionError``, an ``AssertionError``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance
from equipoise.arrays import CheckedLoad, as_load, is_torch, like
from equipoise.backends import choose_backend
from equipoise.certificate import check_placement
from equipoise.dispatch.shares import Shares
from equipoise.errors import IndivisibleError, InfeasibleError, InvalidInputError
from equipoise.fixed_point import to_fixed_point
from equipoise.how import How
from equipoise.limits import MOST_SLOTS
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import Cluster, PlacementProblem, check_counts, count
from equipoise.restarts import Settings, pack_items
from equipoise.restarts.on_device import pack_tensors, place_tensors, stays_on_device
from equipoise.strategies import DEFAULT, PrunedRestarts

__all__ = ["balanced_packing", "plan_maps", "rebalance_experts", "replicate_experts"]


def balanced_packing(
    weight: Any,
    num_packs: int,
    restarts: int = 2048,
    refined: int = 64,
    noise: float = 0.20,
    swaps: int = 50,
    extremes: int = 4,
    seed: int = 0,
    backend: str = "auto",
    *,
    threads: int | None = None,
) -> tuple[Any, Any]:
    """Pack weighted items into packs of equal size so that the packs weigh about the same.

    Parameters
    ----------
    weight : array, shape (num_layers, num_items)
        Finite and not negative.
    num_packs : int
        Must divide ``num_items``.
    restarts, refined, noise, swaps, extremes
        How widely to search; see ``equipoise.restarts.Settings``.
    seed : int, default 0
    backend : str, default "auto"
        A row of ``equipoise.backends``. It never changes the result.
    threads : int or None, default None
        None uses all processors. It never changes the result.

    Returns
    -------
    pack_index, rank_in_pack : int64 arrays, shape (num_layers, num_items)
        The pack of each item, and its place in the pack.

    Raises
    ------
    IndivisibleError
        An ``AssertionError``: if ``num_packs`` does not divide the items.
    InvalidInputError
        If the weights or a setting break their rule.

    Notes
    -----
    Pruned restarts: heaviest - lightest pack is never more after refinement than after pruning, nor
    after pruning than the plain greedy packing's. The same arguments give the same bits everywhere.

    Examples
    --------
    >>> pack_index, rank_in_pack = balanced_packing(np.array([[6, 5, 4, 3, 2, 2]]), 2)
    >>> np.bincount(pack_index[0], weights=[6, 5, 4, 3, 2, 2]).tolist()
    [11.0, 11.0]
    """
    num_packs, chosen = count(num_packs, "num_packs", most=MOST_SLOTS), choose_backend(backend, _device_of(weight))
    device_bound = stays_on_device(weight, chosen)
    load = _two_axes(weight) if device_bound else _weights(weight)
    items = load.shape[1]
    if items % num_packs:
        raise IndivisibleError(
            f"{items} items do not fill {num_packs} packs evenly. Use a number of packs that divides {items}."
        )
    settings = Settings(restarts, refined, noise, swaps, extremes)
    if device_bound:
        return pack_tensors(weight, num_packs, settings, seed, chosen)
    fixed = to_fixed_point(load, num_packs)
    pack_index, rank_in_pack = pack_items(fixed, num_packs, settings, seed, chosen, threads)
    return like(weight, pack_index.astype(np.int64), rank_in_pack.astype(np.int64))


def replicate_experts(weight: Any, num_phy: int) -> tuple[Any, Any, Any]:
    """Replicate logical experts so that the largest replica is as small as it can be.

    Parameters
    ----------
    weight : array, shape (num_layers, num_logical_experts)
    num_phy : int
        Physical experts, at least one for each logical expert.

    Returns
    -------
    phy2log : int64 array, shape (num_layers, num_phy)
        The logical expert of each physical one: first one of each, then the redundant ones in the order given.
    rank : int64 array, shape (num_layers, num_phy)
        Which replica of its logical expert each physical one is, from 0.
    logcnt : int64 array, shape (num_layers, num_logical_experts)
        Replicas of each logical expert.

    Raises
    ------
    InfeasibleError
        An ``AssertionError``: if there are fewer physical than logical experts.

    Examples
    --------
    >>> [x.tolist() for x in replicate_experts(np.array([[6, 3, 1]]), 5)]
    [[[0, 1, 2, 0, 0]], [[0, 0, 0, 1, 2]], [[3, 1, 1]]]
    """
    from equipoise.kernels.replication.numba import replicate

    load, num_phy = _weights(weight), count(num_phy, "num_phy", most=MOST_SLOTS)
    if num_phy < load.shape[1]:
        raise InfeasibleError(
            f"{num_phy} physical experts cannot hold {load.shape[1]} logical ones, which need one each. "
            f"Add at least {load.shape[1] - num_phy}."
        )
    phy2log, logcnt = replicate(to_fixed_point(load), num_phy, most=num_phy)
    rank = np.empty_like(phy2log)
    order = np.argsort(phy2log, axis=1, kind="stable")
    first = np.cumsum(logcnt, axis=1) - logcnt
    place = np.arange(num_phy) - np.take_along_axis(first, np.take_along_axis(phy2log, order, 1).astype(np.int64), 1)
    np.put_along_axis(rank, order, place.astype(np.int32), axis=1)
    return like(weight, phy2log.astype(np.int64), rank.astype(np.int64), logcnt.astype(np.int64))


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    strategy: str = DEFAULT,
    seed: int = 0,
    backend: str = "auto",
    threads: int | None = None,
    **parameters: Any,
) -> tuple[Any, Any, Any]:
    """Decide which expert each slot holds: the entry point of an expert-parallel load balancer.

    Parameters
    ----------
    weight : array, shape (num_layers, num_logical_experts)
        Tokens routed to each logical expert.
    num_replicas : int
        Slots in a layer, a multiple of ``num_gpus``.
    num_groups : int
        Expert groups. Hierarchical when ``num_nodes`` divides it; otherwise the plan is global, and groups
        and nodes are not looked at.
    num_nodes : int
    num_gpus : int
        EP ranks.
    strategy, seed, backend, threads, **parameters
        As in ``equipoise.solve``.

    Returns
    -------
    phy2log : int64 array, shape (num_layers, num_replicas)
        The logical expert in each slot; rank r owns slots r S to (r + 1) S - 1, S = num_replicas / num_gpus.
    log2phy : int64 array, shape (num_layers, num_logical_experts, largest replica count)
        The slots of each logical expert, ascending, padded with -1.
    logcnt : int64 array, shape (num_layers, num_logical_experts)
        Replicas of each logical expert.

    Raises
    ------
    PreconditionError
        An ``AssertionError``: if the slots do not divide over the ranks, or in the hierarchical case the ranks
        over the nodes or the experts over the groups; or if there are fewer slots than experts.

    Examples
    --------
    >>> phy2log, log2phy, logcnt = rebalance_experts(np.array([[4, 2, 1, 1]]), 6, 1, 1, 2)
    >>> logcnt.tolist()
    [[2, 2, 1, 1]]
    """
    num_groups, num_nodes = count(num_groups, "num_groups"), count(num_nodes, "num_nodes")
    hierarchical = num_groups % num_nodes == 0
    cluster = Cluster.from_slots(num_gpus, num_replicas, num_nodes if hierarchical else 1)
    groups = num_groups if hierarchical else None
    how = How.of(strategy, seed=seed, backend=backend, threads=threads, device=_device_of(weight), **parameters)
    if isinstance(how.strategy, PrunedRestarts) and stays_on_device(weight, how.backend):
        check_counts(_two_axes(weight).shape[1], cluster, groups)
        return place_tensors(weight, cluster, groups if num_nodes > 1 else None, how.strategy, how.seed, how.backend)
    problem = PlacementProblem(CheckedLoad(_weights(weight)), cluster, groups)
    _, placement = how.place(problem)
    check_placement(problem, placement)
    maps = placement.physical_to_logical, placement.logical_to_physical, placement.replica_count
    return like(weight, *(array.astype(np.int64) for array in maps))


def plan_maps(
    plan: Plan, routed_per_step: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return a plan as ``rebalance_experts`` returns placements, with dormant replicas left out where tokens go.

    Parameters
    ----------
    plan : Plan
    routed_per_step : float or None, default None
        Of a plan in time, which batch size: see ``Plan.shares_for``. None is the largest that was planned for.

    Returns
    -------
    phy2log : int64 array, shape (num_layers, num_slots)
        The logical expert in each slot, dormant replicas among them: their weights are there.
    log2phy : int64 array, shape (num_layers, num_logical_experts, most active replicas)
        The slots of each logical expert that get tokens, ascending, padded with -1.
    logcnt : int64 array, shape (num_layers, num_logical_experts)
        Active replicas of each logical expert.

    Raises
    ------
    InvalidInputError
        If the active replicas of an expert get different shares, which these maps cannot say.

    Examples
    --------
    >>> import equipoise as eq
    >>> model = eq.LatencyModel(20, 12, 4, 0.06)
    >>> plan = eq.solve(eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(2, 3), latency=model, routed_per_step=8))
    >>> phy2log, log2phy, logcnt = plan_maps(plan)
    >>> phy2log.shape, log2phy.shape, logcnt.tolist()
    ((1, 6), (1, 4, 1), [[1, 1, 1, 1]])
    """
    as_instance(plan, Plan, "plan", "a Plan, as equipoise.solve returns it")
    placement = plan.placement
    shares = plan.shares if routed_per_step is None else plan.shares_for(routed_per_step)
    shares = Shares.even(placement) if shares is None else shares
    table = placement.physical_to_logical
    awake = Placement(np.where(shares.values > 0, table, -1), placement.num_ranks, placement.num_logical_experts)
    if not np.allclose(shares.values, Shares.even(awake).values, rtol=0, atol=1e-6):
        raise InvalidInputError("replicas of an expert get different shares, which these maps cannot say.")
    maps = table, awake.logical_to_physical, awake.replica_count
    phy2log, log2phy, logcnt = (array.astype(np.int64) for array in maps)
    return phy2log, log2phy, logcnt


def _device_of(weight: Any) -> str:
    """Return the kind of device that the weights live on."""
    return weight.device.type if is_torch(weight) else "cpu"


def _two_axes(weight: Any) -> Any:
    """Return the weights if they have two axes and are not empty; a third would be summed, which nobody asked for."""
    if getattr(weight, "ndim", 2) != 2:
        raise InvalidInputError(f"weight has shape {tuple(weight.shape)}; it must be (layers, experts).")
    if 0 in getattr(weight, "shape", ()):
        raise InvalidInputError(
            f"weight has shape {tuple(weight.shape)}, which is empty; it needs a layer and an expert."
        )
    return weight


def _weights(weight: Any) -> NDArray[np.float64]:
    """Return the weights as a checked float64 array on the host."""
    return as_load(_two_axes(weight), "weight")
