"""What is left of a placement on the cluster that is asked for: ranks may be gone, new, or have other widths."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InfeasibleError, InvalidInputError, InvalidPlacementError
from equipoise.fixed_point import to_fixed_point
from equipoise.kernels.assignment.numba import assign
from equipoise.kernels.native import native
from equipoise.placement import Placement
from equipoise.problem import Cluster, PlacementProblem
from equipoise.replan.levelling import EMPTY, GONE
from equipoise.threads import let_others

__all__ = [
    "Remainder",
    "as_placement",
    "check_lost_ranks",
    "count_kept",
    "count_transfers",
    "remainder",
    "what_is_left",
]

Ints = NDArray[np.int32]
MOST = np.int64(2**31)  # more copies than any expert has


@dataclass(frozen=True, eq=False)
class Remainder:
    """A placement in force, brought to the ranks and slots of a problem with as few transfers as that takes.

    Attributes
    ----------
    held : int32 array, shape (num_layers, num_ranks, slots_per_rank)
        The expert in each slot; ``EMPTY``, or ``GONE`` on a lost rank. Every expert has a slot.
    was : bool array, shape (num_layers, num_ranks, num_logical_experts)
        What each rank that is left holds in the placement in force.
    transfers : int64 array, shape (num_layers,)
        What ``held`` takes: one for each expert that was nowhere it may be.
    node : int32 array, shape (num_ranks,)
    home : int32 array, shape (num_layers, num_logical_experts)
        The node on which each expert must lie; 0 for all ranks and experts of a problem that is not hierarchical.
    alive : int64 array
        The ranks that are left, ascending.
    hierarchical : bool
        Whether expert groups are kept whole on the nodes that are left.
    weight : int64 array, shape (num_layers, num_logical_experts)
        The load as whole numbers.
    """

    held: Ints
    was: NDArray[np.bool_]
    transfers: NDArray[np.int64]
    node: Ints
    home: Ints
    alive: NDArray[np.int64]
    hierarchical: bool
    weight: NDArray[np.int64]


def remainder(problem: PlacementProblem, current: Placement, lost_ranks: Iterable[int] = ()) -> Remainder:
    """Return what is left of ``current`` for ``problem``, with every expert placed.

    Parameters
    ----------
    problem : PlacementProblem
        Its cluster counts the lost ranks too; their slots stay empty.
    current : Placement
        Of the same layers and experts. It may have fewer or more ranks (rank r is the same rank), fewer or more
        slots a rank, empty slots and experts without a slot.
    lost_ranks : iterable of int
        Ranks of either that hold nothing any more.

    Raises
    ------
    InvalidInputError
        If ``lost_ranks`` names a rank that is in neither, or every rank of the problem.
    InvalidPlacementError
        If ``current`` is for other layers or experts.
    InfeasibleError
        If the slots that are left cannot hold every expert, or those of a node all experts of its groups.

    Notes
    -----
    What stays on a rank keeps its slot. In a hierarchical problem, groups go to the nodes that hold most of them,
    an assignment problem solved exactly; whatever then lies on another node is dropped.
    """
    cluster, layers, experts = problem.cluster, problem.num_layers, problem.num_logical_experts
    if (current.num_layers, current.num_logical_experts) != (layers, experts):
        raise InvalidPlacementError(
            f"the placement in force has {current.num_layers} layers of {current.num_logical_experts} experts, the "
            f"problem {layers} of {experts}; pass the placement of the same model."
        )
    lost = check_lost_ranks(lost_ranks, max(cluster.num_ranks, current.num_ranks))
    alive = np.array([g for g in range(cluster.num_ranks) if g not in lost], dtype=np.int64)
    if not len(alive):
        raise InvalidInputError(f"lost_ranks names all {cluster.num_ranks} ranks; one at least must be left.")
    slots = len(alive) * cluster.slots_per_rank
    if slots < experts:
        raise InfeasibleError(
            f"{slots} slots on the {len(alive)} ranks that are left cannot hold {experts} logical experts. Bring "
            f"back {-(-experts // cluster.slots_per_rank) - len(alive)} ranks, or use at least "
            f"{-(-experts // len(alive))} slots a rank."
        )
    old = current.physical_to_logical.reshape(layers, current.num_ranks, current.slots_per_rank).copy()
    old[:, [g for g in lost if g < current.num_ranks]] = -1
    node = (np.arange(cluster.num_ranks) // cluster.ranks_per_node).astype(np.int32)
    nodes = np.unique(node[alive])
    groups = problem.num_expert_groups or 1
    hierarchical = problem.is_hierarchical and len(nodes) > 1 and groups % len(nodes) == 0
    if not hierarchical:
        node[:] = 0
    home = np.zeros((layers, experts), dtype=np.int32)
    if hierarchical:
        of_group = _home_of_groups(old[:, : cluster.num_ranks], node, nodes, groups, experts)
        home = np.repeat(of_group, experts // groups, axis=1)
        _check_room(experts // len(nodes), np.bincount(node[alive]) * cluster.slots_per_rank, nodes)
    held = np.full((layers, cluster.num_ranks, cluster.slots_per_rank), GONE, dtype=np.int32)
    held[:, alive] = EMPTY
    was = np.empty((layers, cluster.num_ranks, experts), dtype=np.bool_)
    transfers = np.zeros(layers, dtype=np.int64)
    weight = to_fixed_point(problem.load, cluster.num_ranks)
    let_others()
    _fit(old, weight, node, home, held, was, transfers)
    return Remainder(held, was, transfers, node, home, alive, hierarchical, weight)


def check_lost_ranks(lost_ranks: Iterable[int], num_ranks: int) -> list[int]:
    """Return the lost ranks ascending, each once, or say which of them is no rank."""
    if not isinstance(lost_ranks, Iterable):
        raise InvalidInputError(f"lost_ranks is {lost_ranks!r}; it must list ranks, such as [0], or be ().")
    lost: set[int] = set()
    for rank in lost_ranks:
        try:
            number = operator.index(rank)
        except TypeError:
            number = -1
        if isinstance(rank, bool) or not 0 <= number < num_ranks:
            raise InvalidInputError(f"lost_ranks names {rank!r}; it must name ranks from 0 to {num_ranks - 1}.")
        lost.add(number)
    return sorted(lost)


def as_placement(value: Any, name: str = "current") -> Placement:
    """Return a placement, or the one of a plan, or say what to pass."""
    placement = getattr(value, "placement", value)
    if not isinstance(placement, Placement):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a Placement, or a Plan for its placement.")
    return placement


def count_transfers(current: Any, target: Any, lost_ranks: Iterable[int] = ()) -> NDArray[np.int64]:
    """Return how many slots of each layer of ``target`` hold an expert that their rank does not hold in ``current``.

    Both are a ``Placement`` or a ``Plan``, of the same layers. Rank r is the same rank in both. Copies within a rank do
    not count; nor does what lost ranks held.

    Raises
    ------
    InvalidInputError
        If ``current`` or ``target`` is neither, or ``lost_ranks`` does not list ranks of either.
    InvalidPlacementError
        If the two have different numbers of layers.

    Examples
    --------
    >>> count_transfers(Placement([[0, 1, 2, 3]], 2, 4), Placement([[1, 0, 2, 1]], 2, 4)).tolist()
    [1]
    """
    current, target = as_placement(current), as_placement(target, "target")
    if current.num_layers != target.num_layers:
        raise InvalidPlacementError(
            f"current has {current.num_layers} layers and target has {target.num_layers}; pass placements of the same "
            "model."
        )
    lost = check_lost_ranks(lost_ranks, max(current.num_ranks, target.num_ranks))
    old = current.physical_to_logical.reshape(current.num_layers, current.num_ranks, -1).copy()
    old[:, [rank for rank in lost if rank < current.num_ranks]] = -1
    new = target.physical_to_logical.reshape(target.num_layers, target.num_ranks, -1)
    arrive: NDArray[np.int64] = (new >= 0).sum(axis=(1, 2)) - count_kept(new, old).sum(axis=1)
    return arrive


def count_kept(new: Ints, old: Ints) -> NDArray[np.int64]:
    """Return how many slots of each rank, [layers, ranks], hold an expert that the rank holds in ``old``.

    Both int32 [layers, ranks, slots]; ranks that ``old`` lacks hold nothing there.
    """
    kept = np.zeros(new.shape[:2], dtype=np.int64)
    _count_kept(new.copy(), old.copy(), kept)  # the native code would be compiled once more for a read-only array
    return kept


@native
def _count_kept(new, old, kept):
    layers, ranks, slots = new.shape
    for layer in range(layers):
        for g in range(min(ranks, old.shape[1])):
            for s in range(slots):
                e = new[layer, g, s]
                if e >= 0:
                    there = False
                    for other in range(old.shape[2]):
                        there |= old[layer, g, other] == e
                    kept[layer, g] += there


def what_is_left(problem: PlacementProblem, left: Remainder) -> PlacementProblem | None:
    """Return ``problem`` without its lost ranks; None if nodes that groups must keep to have unequal ranks left."""
    cluster = problem.cluster
    if len(left.alive) == cluster.num_ranks:
        return problem
    if not left.hierarchical:
        return dataclasses.replace(
            problem, cluster=Cluster(len(left.alive), cluster.slots_per_rank), num_expert_groups=None
        )
    ranks = np.bincount(left.node[left.alive])
    ranks = ranks[ranks > 0]
    if (ranks != ranks[0]).any():
        return None
    return dataclasses.replace(problem, cluster=Cluster(len(left.alive), cluster.slots_per_rank, len(ranks)))


def _home_of_groups(old: Ints, node: Ints, nodes: Ints, groups: int, experts: int) -> Ints:
    """Return the node of each group, [layers, groups]: equally many a node, where most of their copies lie."""
    layers, ranks, slots = old.shape
    quota = groups // len(nodes)
    on_node = np.repeat(node[:ranks], slots)
    out = np.empty((layers, groups), dtype=np.int32)
    for layer in range(layers):
        row = old[layer].ravel()
        held = np.zeros((groups, int(nodes.max()) + 1), dtype=np.int64)
        there = (row >= 0) & np.isin(on_node, nodes)
        np.add.at(held, (row[there] // (experts // groups), on_node[there]), 1)
        group_of = assign(-np.repeat(held[:, nodes], quota, axis=1))
        out[layer, group_of] = np.repeat(nodes, quota)
    return out


def _check_room(needed: int, slots_on_node: Any, nodes: Ints) -> None:
    for n in nodes:
        if slots_on_node[n] < needed:
            raise InfeasibleError(
                f"node {n} has {slots_on_node[n]} slots left for the {needed} experts of its groups. Bring back a rank "
                "of it, or plan without expert groups."
            )


@native
def _fit(old, weight, node, home, held, was, transfers):
    """Keep what may stay, then place what is nowhere: heaviest first, where it leaves the lightest rank."""
    layers, ranks, slots = held.shape
    experts = was.shape[2]
    for layer in range(layers):
        copies = np.zeros(experts, dtype=np.int64)
        was[layer] = False
        for g in range(min(ranks, old.shape[1])):
            for s in range(old.shape[2]):
                e = old[layer, g, s]
                if e < 0:
                    continue
                was[layer, g, e] = True
                if s < slots and held[layer, g, s] == EMPTY and home[layer, e] == node[g]:
                    held[layer, g, s] = e
                    copies[e] += 1
        # Slots that the new ranks do not have: what has no other copy comes first.
        for last in (False, True):
            for g in range(min(ranks, old.shape[1])):
                for s in range(slots, old.shape[2]):
                    e = old[layer, g, s]
                    if e >= 0 and home[layer, e] == node[g] and (last or copies[e] == 0):
                        _squeeze_in(e, held[layer, g], copies, last)
        missing = 0
        for e in range(experts):
            missing += copies[e] == 0
        if missing == 0:
            continue
        load = np.zeros(ranks, dtype=np.int64)
        for g in range(ranks):
            for s in range(slots):
                if held[layer, g, s] >= 0:
                    load[g] += weight[layer, held[layer, g, s]] // copies[held[layer, g, s]]
        for e in np.argsort(-weight[layer], kind="mergesort"):
            if copies[e] > 0:
                continue
            best, best_g, best_s = np.int64(0), -1, -1
            for g in range(ranks):
                if node[g] != home[layer, e]:
                    continue
                for s in range(slots):
                    b = held[layer, g, s]
                    if b == GONE or (b >= 0 and copies[b] < 2):
                        continue
                    after = load[g] + weight[layer, e] - (weight[layer, b] // copies[b] if b >= 0 else 0)
                    if best_g < 0 or after < best:
                        best, best_g, best_s = after, g, s
            b = held[layer, best_g, best_s]
            if b >= 0:
                before = weight[layer, b] // copies[b]
                copies[b] -= 1
                for g in range(ranks):
                    for s in range(slots):
                        if held[layer, g, s] == b:
                            load[g] += weight[layer, b] // copies[b] - before
            held[layer, best_g, best_s] = e
            copies[e] = 1
            load[best_g] = best
            transfers[layer] += not was[layer, best_g, e]


@native
def _squeeze_in(e, slots, copies, empty_only):
    """Give ``e`` an empty slot of a rank, or the slot of the expert with most copies, unless the rank holds it."""
    at, most = -1, 1
    for s in range(len(slots)):
        if slots[s] == e:
            return
        if slots[s] == EMPTY:
            if most < MOST:
                at, most = s, MOST
        elif not empty_only and slots[s] >= 0 and copies[slots[s]] > most:
            at, most = s, copies[slots[s]]
    if at >= 0:
        if slots[at] >= 0:
            copies[slots[at]] -= 1
        slots[at] = e
        copies[e] += 1
