"""What is left of a placement on the cluster that is asked for: ranks may be gone, new, or have other widths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InfeasibleError, InvalidPlacementError
from equipoise.fixed_point import to_fixed_point
from equipoise.kernels.assignment.numba import assign
from equipoise.kernels.native import internal, native
from equipoise.replan.in_force import InForce, as_placement, check_lost_ranks
from equipoise.replan.levelling import EMPTY, GONE
from equipoise.threads import part

__all__ = ["Remainder", "count_kept", "count_transfers", "remainder"]

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
    home : int32 array, shape (num_layers, num_logical_experts)
        The node on which each expert must lie; 0 for all experts of a problem that is not hierarchical.
    weight : int64 array, shape (num_layers, num_logical_experts)
        The load as whole numbers.
    """

    held: Ints
    was: NDArray[np.bool_]
    transfers: NDArray[np.int64]
    home: Ints
    weight: NDArray[np.int64]


@part
def remainder(start: InForce) -> Remainder:
    """Return what is left of the placement in force for the problem, with every expert placed.

    Raises
    ------
    InfeasibleError
        If the slots that are left of a node cannot hold all experts of its groups.

    Notes
    -----
    What stays on a rank keeps its slot. In a hierarchical problem, groups go to the nodes that hold most of them,
    an assignment problem solved exactly; whatever then lies on another node is dropped.
    """
    problem, cluster, alive, node = start.problem, start.problem.cluster, start.alive, start.node
    layers, experts = problem.num_layers, problem.num_logical_experts
    old, nodes = start.slots.copy(), np.unique(node[alive])  # the native code would be compiled once more for read-only
    home = np.zeros((layers, experts), dtype=np.int32)
    if start.hierarchical:
        groups = problem.num_expert_groups or 1
        of_group = _home_of_groups(old[:, : cluster.num_ranks], node, nodes, groups, experts)
        home = np.repeat(of_group, experts // groups, axis=1)
        _check_room(experts // len(nodes), np.bincount(node[alive]) * cluster.slots_per_rank, nodes)
    held = np.full((layers, cluster.num_ranks, cluster.slots_per_rank), GONE, dtype=np.int32)
    held[:, alive] = EMPTY
    was = np.empty((layers, cluster.num_ranks, experts), dtype=np.bool_)
    transfers = np.zeros(layers, dtype=np.int64)
    weight = to_fixed_point(problem.load, cluster.num_ranks)
    _fit(old, weight, node, home, held, was, transfers)
    return Remainder(held, was, transfers, home, weight)


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
    >>> from equipoise import Placement
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


def _home_of_groups(old: Ints, node: Ints, nodes: Ints, groups: int, experts: int) -> Ints:
    """Return the node of each group, [layers, groups]: equally many a node, where most of their copies lie."""
    layers, ranks, slots = old.shape
    quota, width, of_group = groups // len(nodes), int(nodes.max()) + 1, experts // groups
    on_node = np.repeat(node[:ranks], slots)
    rows = old.reshape(layers, -1)
    layer, slot = np.nonzero((rows >= 0) & np.isin(on_node, nodes))
    cell = (layer * groups + rows[layer, slot] // of_group) * width + on_node[slot]
    held = np.bincount(cell, minlength=layers * groups * width).reshape(layers, groups, width)
    cost = -np.repeat(held[:, :, nodes], quota, axis=2)
    out = np.empty((layers, groups), dtype=np.int32)
    home = np.repeat(nodes, quota)
    for row in range(layers):
        out[row, assign(cost[row])] = home
    return out


def _check_room(needed: int, slots_on_node: Any, nodes: Ints) -> None:
    for n in nodes:
        if slots_on_node[n] < needed:
            raise InfeasibleError(
                f"node {n} has {slots_on_node[n]} slots left for the {needed} experts of its groups. Bring back a rank "
                "of it, or plan without expert groups."
            )


@part
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
        for _ in range(missing):
            e = np.int64(-1)
            for f in range(experts):  # the heaviest first, ties to the lowest
                if copies[f] == 0 and (e < 0 or weight[layer, f] > weight[layer, e]):
                    e = f
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


@internal
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
