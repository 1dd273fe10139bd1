"""The next placement from the one in force: within a budget of transfers, or anew with as few as that takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.bounds.table import mean_rank_load, replica_load
from equipoise.certificate import Certificate, certify, check_placement
from equipoise.errors import InfeasibleError
from equipoise.how import How
from equipoise.metrics import Metrics
from equipoise.placement import Placement
from equipoise.plan import Plan, Provenance
from equipoise.problem import Cluster, PlacementProblem
from equipoise.replan.anew import plan_anew
from equipoise.replan.budget import MoveLittle, within
from equipoise.replan.keep_slots import reorder
from equipoise.replan.remainder import Remainder, as_placement, remainder
from equipoise.threads import let_others

__all__ = ["replan"]

Ints = NDArray[np.int32]
Int64s = NDArray[np.int64]


def replan(
    problem: PlacementProblem,
    current: Any,
    *,
    max_transfers: int | None,
    max_transfers_total: int | None,
    lost_ranks: Iterable[int],
    how: How,
) -> Plan:
    """Decide where the experts live next, given where they live now; see ``equipoise.solve``.

    Notes
    -----
    With a limit, the ranks are levelled step by step from what they hold, by the steps that gain most per transfer:
    see ``equipoise.replan.levelling``. A larger limit on each layer goes on where a smaller one ends. A limit on all
    layers together goes, transfer by transfer, where the sum over the layers of the busiest ranks' tokens falls most;
    where that is equal, to the lowest layer.

    Without a limit, the strategy plans anew, and its ranks, and in a hierarchical problem its nodes, are renamed so
    that as much as possible stays. A layer takes that plan within a limit too, where it fits and leaves less to the
    busiest rank than the steps do. It is made where the limit, or the equal part of a layer in that of all layers, is
    an eighth of a layer's slots at least, and only for layers whose busiest rank carries more than 0.1 % above the mean
    after the steps that an eighth allows. Which layers these are depends on no limit, so no layer is worse off with a
    larger one.

    In a hierarchical problem, steps leave groups on their nodes, and replicas that lie on other nodes are dropped
    before the first: the slots that then stay empty are the stage ``emptied`` of the plan. Within no transfers at all
    that is refused.
    """
    placement = as_placement(current)
    lost = tuple(lost_ranks)
    budget = MoveLittle(max_transfers, max_transfers_total, lost)
    let_others()
    left = remainder(problem, placement, lost)
    let_others()
    found = None if budget.has_limit else plan_anew(problem, placement, left, np.arange(problem.num_layers), how)
    if found is None:
        _check_nothing_is_dropped(placement, left, budget)
        levelled = within(problem, placement, left, budget, how)
        held, transfers = levelled.held, levelled.transfers
        recorded: Any = budget
        implementation = "numba"
        if levelled.anew is not None:
            recorded = dataclasses.replace(budget, anew=levelled.anew.parameters)
            implementation = levelled.anew.implementation
    else:
        held, recorded, implementation, transfers = found.held, found.strategy, found.implementation, found.transfers
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
    stages = {"transfers": int(transfers.sum())}
    if left.hierarchical:  # elsewhere nothing must leave its slot
        stages["emptied"] = int(_emptied(placement, held, left.alive).sum())
    provenance = Provenance.of(recorded, how.seed, implementation, stages, problem.digest)
    return Plan(problem.cluster, problem.num_expert_groups, target, certificate, metrics, provenance)


def _emptied(current: Placement, held: Ints, alive: Int64s) -> Int64s:
    """Return how many slots of each layer and rank that is left, [layers, ranks], are empty now and were not."""
    layers, _, slots = held.shape
    alive = alive[alive < current.num_ranks]
    old = current.physical_to_logical.reshape(layers, current.num_ranks, -1)[:, alive, :slots]
    more: Int64s = (old >= 0).sum(axis=2) - (held[:, alive] >= 0).sum(axis=2)
    return np.maximum(more, 0)


def _check_nothing_is_dropped(current: Placement, left: Remainder, budget: MoveLittle) -> None:
    """Insist on at least one transfer where groups that lie on several nodes make experts leave their slots."""
    if not left.hierarchical or 0 not in (budget.max_transfers, budget.max_transfers_total):
        return
    emptied = _emptied(current, left.held, left.alive).sum(axis=1)
    if emptied.any():
        layer = int(emptied.argmax())
        raise InfeasibleError(
            f"layer {layer} has expert groups on more than one node, and {emptied[layer]} of its slots would have to "
            "be emptied, which 0 transfers do not fill again. Allow 1 transfer at least, or plan with "
            "num_expert_groups=None."
        )


def _in_their_slots(held: Ints, current: Placement) -> Ints:
    """Return ``held`` [layers, ranks, slots] as [layers, slots], whatever stays on its rank in the slot that it had."""
    layers, ranks, slots = held.shape
    both, width = min(ranks, current.num_ranks), min(slots, current.slots_per_rank)
    old = np.full((layers, ranks, slots), -1, dtype=np.int32)
    old[:, :both, :width] = current.physical_to_logical.reshape(layers, current.num_ranks, -1)[:, :both, :width]
    return reorder(held.reshape(layers, -1), old.reshape(layers, -1), slots)


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
