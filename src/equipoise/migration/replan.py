"""The next placement from the one in force: within a budget of transfers, or anew with as few as that takes."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.certificate import Certificate, certify, check_placement
from equipoise.certificate.bounds import mean_rank_load, replica_load
from equipoise.errors import InfeasibleError, InvalidInputError
from equipoise.kernels.assignment.numba import assign
from equipoise.kernels.native import native
from equipoise.kernels.replan import GONE
from equipoise.kernels.replan.numba import MAX, descend
from equipoise.metrics import Metrics
from equipoise.migration.keep_slots import reorder
from equipoise.migration.match_ranks import match_ranks
from equipoise.migration.remainder import Remainder, count_kept, count_transfers, remainder, what_is_left
from equipoise.placement import Placement
from equipoise.plan import Plan, Provenance
from equipoise.problem import Cluster, PlacementProblem
from equipoise.strategies import Strategy
from equipoise.threads import let_others

__all__ = ["MoveLittle", "as_placement", "curves", "replan"]

Ints = NDArray[np.int32]
Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MoveLittle:
    """How far a plan may be from the placement in force, as its provenance records it.

    Parameters
    ----------
    max_transfers : int or None
        Transfers in each layer, at most; None sets no limit.
    max_transfers_total : int or None
        Transfers in all layers together, at most; None sets no limit.
    lost_ranks : tuple of int
        Ranks whose slots stay empty.

    Raises
    ------
    InvalidInputError
        If a limit is not a whole number of at least 0.
    """

    max_transfers: int | None
    max_transfers_total: int | None
    lost_ranks: tuple[int, ...]

    name: ClassVar[str] = "move-little"

    def __post_init__(self) -> None:
        for name in ("max_transfers", "max_transfers_total"):
            value: Any = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__") or value < 0):
                raise InvalidInputError(f"{name} is {value!r}; it must be a whole number of at least 0, or None.")
            object.__setattr__(self, name, None if value is None else operator.index(value))

    @property
    def has_limit(self) -> bool:
        """Whether transfers are limited at all."""
        return self.max_transfers is not None or self.max_transfers_total is not None


def as_placement(current: Any) -> Placement:
    """Return a placement, or the one of a plan, or say what to pass."""
    placement = getattr(current, "placement", current)
    if not isinstance(placement, Placement):
        raise InvalidInputError(f"current is a {type(current).__name__}; pass the Placement in force, or its Plan.")
    return placement


def replan(
    problem: PlacementProblem,
    current: Any,
    *,
    max_transfers: int | None,
    max_transfers_total: int | None,
    lost_ranks: Iterable[int],
    strategy: Strategy,
    seed: int,
    backend: str,
    threads: int | None,
) -> Plan:
    """Decide where the experts live next, given where they live now; see ``equipoise.solve``.

    Notes
    -----
    With a limit, the ranks are levelled step by step from what they hold, by the steps that gain most per transfer:
    see ``equipoise.kernels.replan``. A larger limit on each layer goes on where a smaller one ends. A limit on all
    layers together goes, transfer by transfer, where the sum over the layers of the busiest ranks' tokens falls most.
    Without a limit, ``strategy`` plans anew, and its ranks, and in a hierarchical problem its nodes, are renamed so
    that as much as possible stays.
    """
    placement = as_placement(current)
    lost = tuple(lost_ranks)
    budget = MoveLittle(max_transfers, max_transfers_total, lost)
    let_others()
    left = remainder(problem, placement, lost)
    let_others()
    smaller = what_is_left(problem, left)
    if budget.has_limit or smaller is None:
        held, transfers = _descend_within(problem, left, budget, threads)
        how: Any = budget
        implementation = "numba"
    else:
        found = strategy.place(smaller, seed, backend, threads)
        held = _rename(found.physical_to_logical, placement, left, smaller, problem.cluster.num_ranks, threads)
        how, implementation, transfers = found.strategy, found.implementation, None
    let_others()
    table = _in_their_slots(np.maximum(held, -1), placement)
    target = Placement(table, problem.cluster.num_ranks, problem.num_logical_experts)
    let_others()
    # A plan that moves little is far from the bounds that take longest to find; the plain ones say as much.
    whole = not budget.has_limit and (target.physical_to_logical >= 0).all()
    certificate = certify(problem, target) if whole else _certify_plainly(problem, left, target)
    let_others()
    mean = problem.load.sum(axis=1) / len(left.alive)
    metrics = Metrics(mean, certificate.max_rank_load, target.num_duplicates)
    transfers = count_transfers(placement, target, lost) if transfers is None else transfers
    stages = {"transfers": int(transfers.sum())}
    provenance = Provenance.of(how, seed, implementation, stages, problem.digest)
    return Plan(problem.cluster, problem.num_expert_groups, target, certificate, metrics, provenance)


def levels(left: Remainder) -> Int64s:
    """Return per layer what the busiest rank carries at least: the mean of the busiest node."""
    level: Int64s
    if not left.hierarchical:
        level = left.weight.sum(axis=1) // len(left.alive)
        return level
    ranks = np.bincount(left.node[left.alive])
    on_node = np.zeros((len(left.weight), len(ranks)), dtype=np.int64)
    for n in range(len(ranks)):
        on_node[:, n] = np.where(left.home == n, left.weight, 0).sum(axis=1) // max(ranks[n], 1)
    level = on_node.max(axis=1)
    return level


def curves(
    problem: PlacementProblem, left: Remainder, limit: int | Int64s, threads: int | None
) -> tuple[Ints, Int64s, Int64s, Floats]:
    """Descend with up to ``limit`` transfers a layer, or what it needs if that is more.

    ``limit`` may be one for each layer. Returns the slots, the curve of the busiest rank as whole numbers, what was
    spent, and the tokens that one such number stands for, [layers].
    """
    limits = np.maximum(left.transfers, limit)
    held, curve, spent = descend(left.held, left.was, left.weight, left.node, left.home, levels(left), limits, threads)
    total = left.weight.sum(axis=1)
    tokens = np.divide(problem.load.sum(axis=1), total, out=np.zeros(len(total)), where=total > 0)
    return held, curve, spent, tokens


def _descend_within(
    problem: PlacementProblem, left: Remainder, budget: MoveLittle, threads: int | None
) -> tuple[Ints, Int64s]:
    """Return the slots after levelling within the budget, int32 [layers, ranks, slots], and the transfers [layers]."""
    most = problem.cluster.num_slots if budget.max_transfers is None else budget.max_transfers
    needed = int(left.transfers.max())
    if budget.max_transfers is not None and needed > most:
        layer = int(left.transfers.argmax())
        raise InfeasibleError(
            f"layer {layer} has {needed} experts that no slot holds, and max_transfers is {most}. Placing them takes "
            f"max_transfers={needed}."
        )
    most = min(most, problem.cluster.num_slots)
    total = budget.max_transfers_total
    if total is None:
        held, _, spent, _ = curves(problem, left, most, threads)
        return held, spent
    needed = int(left.transfers.sum())
    if needed > total:
        raise InfeasibleError(
            f"{needed} experts, over all layers, are held by no slot, and max_transfers_total is {total}. Placing them "
            f"takes max_transfers_total={needed}."
        )
    most = min(most, total)
    # Few layers want more than twice their equal part, so the curves are first followed that far.
    reach = min(most, max(16, 2 * -(-total // problem.num_layers)))
    while True:
        _, curve, _, tokens = curves(problem, left, reach, threads)
        share = _share_out(np.where(curve == MAX, 0, curve) * tokens[:, None], left.transfers, total)
        if reach == most or (share < reach).all():
            break
        reach = min(most, 2 * reach)
    # The curves are one way of many, and giving each layer the same may do better.
    shares = [share, np.maximum(left.transfers, total // problem.num_layers)]
    found = [curves(problem, left, each, threads) for each in shares if each.sum() <= total]
    held, _, spent, _ = min(found, key=lambda way: float((way[1][:, -1] * way[3]).sum()))
    return held, spent


@native
def _share_out(curve, start, total):  # type: ignore[no-untyped-def]
    """Return the transfers of each layer: from ``start``, always the stretch that saves most tokens per transfer."""
    layers, width = curve.shape
    share = start.copy()
    left = total - share.sum()
    slope, stretch = np.full(layers, -1.0), np.zeros(layers, dtype=np.int64)
    stale = np.ones(layers, dtype=np.bool_)
    while left > 0:
        best = -1
        for layer in range(layers):
            if stale[layer] or stretch[layer] > left:
                stale[layer], slope[layer], stretch[layer] = False, 0.0, 0
                for more in range(1, min(left, width - 1 - share[layer]) + 1):
                    saved = (curve[layer, share[layer]] - curve[layer, share[layer] + more]) / more
                    if saved > slope[layer]:
                        slope[layer], stretch[layer] = saved, more
            if slope[layer] > 0 and (best < 0 or slope[layer] > slope[best]):
                best = layer
        if best < 0:
            break
        share[best] += stretch[best]
        left -= stretch[best]
        stale[best] = True
    return share


def _rename(
    table: Ints, current: Placement, left: Remainder, smaller: PlacementProblem, num_ranks: int, threads: int | None
) -> Ints:
    """Return a plan for the ranks that are left with ranks and nodes renamed so that most stays."""
    layers, slots = len(table), smaller.cluster.slots_per_rank
    ranks, width = len(left.alive), max(slots, current.slots_per_rank)
    old = np.full((layers, num_ranks, width), -1, dtype=np.int32)
    both = min(num_ranks, current.num_ranks)
    was = current.physical_to_logical.reshape(layers, current.num_ranks, -1)
    old[:, :both, : current.slots_per_rank] = was[:, :both]
    old = old[:, left.alive]
    new = np.full((layers, ranks, width), -1, dtype=np.int32)
    new[:, :, :slots] = table.reshape(layers, ranks, slots)
    nodes = smaller.cluster.num_nodes if smaller.is_hierarchical else 1
    matched = match_nodes(new, old, nodes, threads).reshape(layers, ranks, width)
    # What has no expert comes last in a row, so that cutting to the new width loses nothing.
    order = np.argsort(matched < 0, axis=2, kind="stable")
    held = np.full((layers, num_ranks, slots), GONE, dtype=np.int32)
    held[:, left.alive] = np.take_along_axis(matched, order, axis=2)[:, :, :slots]
    return held


def _in_their_slots(held: Ints, current: Placement) -> Ints:
    """Return ``held`` [layers, ranks, slots] as [layers, slots], whatever stays on its rank in the slot that it had."""
    layers, ranks, slots = held.shape
    both, width = min(ranks, current.num_ranks), min(slots, current.slots_per_rank)
    old = np.full((layers, ranks, slots), -1, dtype=np.int32)
    old[:, :both, :width] = current.physical_to_logical.reshape(layers, current.num_ranks, -1)[:, :both, :width]
    return reorder(held.reshape(layers, -1), old.reshape(layers, -1), slots)


def match_nodes(new: Ints, old: Ints, num_nodes: int, threads: int | None) -> Ints:
    """Return ``new`` with its nodes, and the ranks of each, renamed so that most experts stay on their rank.

    Both int32 [layers, ranks, slots]; the result is [layers, ranks * slots]. Exact: the ranks of each pair of nodes
    are matched first, then the nodes.
    """
    layers, ranks, slots = new.shape
    by_node = new.reshape(layers, num_nodes, -1)
    flat = old.reshape(layers, -1)
    if num_nodes == 1:
        return match_ranks(by_node.reshape(layers, -1), flat, ranks, 1, threads)
    stay = np.zeros((layers, num_nodes, num_nodes), dtype=np.int64)  # [new node, old node]
    turned = np.empty((num_nodes, layers, num_nodes, by_node.shape[2]), dtype=np.int32)  # [turn, layer, old node]
    at = np.arange(num_nodes)
    for turn in range(num_nodes):
        source = (at + turn) % num_nodes
        matched = match_ranks(by_node[:, source].reshape(layers, -1), flat, ranks, num_nodes, threads)
        turned[turn] = matched.reshape(layers, num_nodes, -1)
        kept = count_kept(turned[turn].reshape(layers, ranks, slots), old)
        stay[:, source, at] = kept.reshape(layers, num_nodes, -1).sum(axis=2)
    out = np.empty_like(by_node)
    for layer in range(layers):
        source = assign(-stay[layer])  # the new node that each old node takes over
        out[layer] = turned[(source - at) % num_nodes, layer, at]
    return out.reshape(layers, -1)


def _certify_plainly(problem: PlacementProblem, left: Remainder, placement: Placement) -> Certificate:
    """Return the certificate from bounds that hold with empty slots too, on the ranks that are left."""
    asked = anywhere = problem
    if len(left.alive) < problem.cluster.num_ranks:
        asked = dataclasses.replace(problem, num_expert_groups=None)  # nodes may be uneven now
        anywhere = PlacementProblem(problem.load, Cluster(len(left.alive), problem.cluster.slots_per_rank))
    rank_load = check_placement(asked, placement, allow_empty=True)
    let_others()
    lower = mean_rank_load(anywhere)
    names = ["mean"] * len(lower)
    # No more than w / mean + 1 slots keep the replicas of an expert of w tokens from exceeding the mean, and over all
    # experts these are so many: then t* is no more than the mean.
    if anywhere.cluster.num_slots < anywhere.cluster.num_ranks + anywhere.num_logical_experts:
        replica = replica_load(anywhere)
        names = ["replica" if more else "mean" for more in replica > lower]
        lower = np.maximum(lower, replica)
    return Certificate(lower, rank_load.max(axis=1), tuple(names))
