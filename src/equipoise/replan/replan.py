"""The next placement from the one in force: within a budget, or anew with as few transfers as that takes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch import Choose, keep_even
from equipoise.dispatch.connected import NO_LIMIT, connect_ranks
from equipoise.how import How
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem
from equipoise.provenance import Provenance
from equipoise.replan.anew import plan_anew
from equipoise.replan.budget import Budget
from equipoise.replan.curves import Curves, Within, emptied, within
from equipoise.replan.foreseen import foresee, is_foreseen
from equipoise.replan.in_force import InForce
from equipoise.replan.keep_slots import in_their_slots
from equipoise.replan.remainder import count_kept, count_transfers
from equipoise.replan.settle import settle
from equipoise.replan.stay import recounted, which_stay
from equipoise.robust.back_test import Plans
from equipoise.robust.scenarios import expected_busiest
from equipoise.threads import part

__all__ = ["Next", "next_placement", "replan"]

Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Next:
    """The next placement, without a proof.

    Attributes
    ----------
    start : InForce
    placement : Placement
    stays : bool array, shape (num_layers,)
        Which layers keep the placement in force whole because the budget says so.
    stages : dict
        ``transfers`` in all layers, and where groups must keep to nodes the slots ``emptied`` for that.
    implementation : str
    recorded : Any
        The strategy that makes this again, or the budget.
    """

    start: InForce
    placement: Placement
    stays: Bools
    stages: dict[str, int]
    implementation: str
    recorded: Any


def next_placement(
    problem: PlacementProblem, current: Any, budget: Budget, how: How, curves: Curves | None = None
) -> Next:
    """Decide where the experts live next, given where they live now.

    Parameters
    ----------
    problem : PlacementProblem
    current : Placement or Plan
        What is in force; see ``equipoise.replan.in_force``.
    budget : Budget
    how : How
    curves : Curves, optional
        Of these, if more is asked of them than the next placement, so that they plan anew once: see ``frontier``.

    Returns
    -------
    Next
        The same for the same arguments in every process.

    Raises
    ------
    InvalidInputError, InfeasibleError
        As in ``equipoise.solve``.

    Notes
    -----
    With a limit on transfers, the ranks are levelled step by step from what they hold, by the steps that gain most per
    transfer: see ``equipoise.replan.levelling``. A larger limit on each layer goes on where a smaller one ends. A limit
    on all layers together goes, transfer by transfer, where the sum over the layers of the busiest ranks' tokens falls
    most; where that is equal, to the lowest layer.

    With a tolerance and no limit, ranks change places pair by pair until they are level, and few layers are planned
    anew: see ``equipoise.replan.settle``.

    With neither, the strategy plans anew, and its ranks, and in a hierarchical problem its nodes, are renamed so
    that as much as possible stays. A layer takes that plan within a limit too, where it fits and leaves less to the
    busiest rank than the steps do. It is made where the limit, or the equal part of a layer in that of all layers, is
    an eighth of a layer's slots at least, and only for layers whose busiest rank carries more than 0.1 % above the mean
    after the steps that an eighth allows. Which layers these are depends on no limit, so no layer is worse off with a
    larger one.

    Where the load is a forecast with errors, steps lower the expected square of rank loads instead, see
    ``equipoise.robust.steps``, whatever the budget: with neither limit nor tolerance, too, few are left to make by the
    time that none is worth its transfers. A plan made anew is taken within the limits where its expected square is
    above the level by a tenth less than that of as many steps. A larger limit on each layer never leaves more of that.

    In a hierarchical problem, steps leave groups on their nodes, and replicas that lie on other nodes are dropped
    before the first: the slots that then stay empty are the stage ``emptied``. Within no transfers at all that is
    refused.

    Last, whatever stays on its rank keeps its slot, and layers stay as they are where the budget says so.
    """
    start = InForce.of(problem, current, budget.lost_ranks) if curves is None else curves.start
    foreseen = is_foreseen(problem)
    with_steps = foreseen or budget.limits_transfers or budget.tolerance is not None
    whole = None if with_steps else plan_anew(start, np.arange(problem.num_layers), how)
    if whole is not None:
        found = Within(whole.held, whole.transfers, whole)
    elif foreseen:
        found = foresee(start, budget, how)
    elif budget.tolerance is not None and not budget.limits_transfers:
        found = settle(start, budget, how)
    else:
        curves = Curves(start, how, budget) if curves is None else curves
        found = within(curves, budget)
    if how.connected and budget.limits_transfers:
        found = _connect_with_the_rest(start, found, budget, how)
    table, stays = in_their_slots(found.held, start.placement), np.zeros(problem.num_layers, dtype=np.bool_)
    if budget.keeps_layers and start.is_as_asked:
        found, table, stays = _keep_layers(start, found, table, budget, curves)
    stages = {"transfers": int(found.transfers[~stays].sum())}
    if start.hierarchical:  # elsewhere nothing must leave its slot
        stages["emptied"] = int(emptied(start, found.held)[~stays].sum())
    recorded: Any = budget
    if found.anew is not None:
        alone = whole is not None and not budget.keeps_layers
        recorded = found.anew.strategy if alone else dataclasses.replace(budget, anew=found.anew.parameters)
    implementation = "numba" if found.anew is None else found.anew.implementation
    placement = Placement(table, problem.cluster.num_ranks, problem.num_logical_experts)
    return Next(start, placement, stays, stages, implementation, recorded)


def _keep_layers(
    start: InForce, found: Within, table: Ints, budget: Budget, curves: Curves | None
) -> tuple[Within, Ints, Bools]:
    """Let layers stay as they are where the budget says so; return what was found, the slots, and which layers stay.

    With a limit on all layers, those that change share what the others had of it, by ``curves``, if that is better.
    """
    kept = start.placement.physical_to_logical
    stays = _which_stay(start, table, budget)
    shares = budget.max_layers is not None and budget.max_transfers_total is not None
    if curves is not None and shares and stays.any():
        others = within(curves, budget, stays)
        again = in_their_slots(others.held, start.placement)
        again[stays], table[stays] = kept[stays], kept[stays]
        if _tokens(start, again) < _tokens(start, table):
            found, table = others, again
            stays |= _which_stay(start, table, budget)
    table[stays] = kept[stays]
    return found, table, stays


@part
def _connect_with_the_rest(start: InForce, found: Within, budget: Budget, how: How) -> Within:
    """Connect ranks by what is left of the limits on transfers, which a swap takes two of; no rank gets busier."""
    held, transfers = found.held, found.transfers
    left = np.full(len(held), NO_LIMIT)
    if budget.max_transfers is not None:
        left = np.maximum(min(budget.max_transfers, NO_LIMIT) - transfers, 0)
    if budget.max_transfers_total is not None:
        rest = max(min(budget.max_transfers_total, NO_LIMIT) - int(transfers.sum()), 0)
        left = np.minimum(left, rest // len(held))
    table = np.maximum(held, -1).reshape(len(held), -1)
    table, _ = connect_ranks(start.problem, table, 0.0, left // 2, how.threads)
    connected = np.where(held >= 0, table.reshape(held.shape), held)
    arrived = (connected >= 0).sum(axis=(1, 2)) - count_kept(connected, start.slots).sum(axis=1)
    return Within(connected, arrived, found.anew)


def _tokens(start: InForce, table: Ints) -> float:
    """Return what the busiest ranks of all layers carry together, in tokens per window."""
    from equipoise.kernels.recount.numba import recount

    return float(recount(table, start.problem.load, start.problem.cluster.num_ranks, 1, 1)[0].max(axis=1).sum())


@part
def _which_stay(start: InForce, table: Ints, budget: Budget) -> Bools:
    """Return which layers keep the placement in force rather than ``table`` [layers, slots]; see ``Budget``."""
    problem, kept = start.problem, start.placement.physical_to_logical
    rank_load, flaws = recounted(problem, kept)
    now = _busiest(problem, kept, rank_load)
    rank_load, flaws_then = recounted(problem, table)
    return which_stay(budget, now, now - _busiest(problem, table, rank_load), (flaws, flaws_then))


def _busiest(problem: PlacementProblem, table: Ints, rank_load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the busiest rank of each layer carries, or in the next window is expected to."""
    if problem.forecast is None:
        busiest: NDArray[np.float64] = rank_load.max(axis=1)
        return busiest
    held = table.reshape(problem.num_layers, problem.cluster.num_ranks, -1)
    busiest = expected_busiest(problem.forecast, held)
    busiest *= problem.load.sum(axis=1) / problem.cluster.num_ranks
    return busiest


def replan(
    problem: PlacementProblem,
    current: Any,
    budget: Budget,
    how: How,
    choose: Choose = keep_even,
    curves: Curves | None = None,
) -> Plan:
    """Return the next placement, see ``next_placement``, with the shares that ``choose`` gives it, and its proof."""
    found = next_placement(problem, current, budget, how, curves)
    placement, lost = found.placement, [rank for rank in found.start.lost if rank < problem.cluster.num_ranks]
    # A plan that moves little is far from the bounds that take longest to find; the quick ones say as much.
    quick = budget.limits_transfers or bool((placement.physical_to_logical < 0).any())
    provenance = Provenance.of(found.recorded, how.seed, found.implementation, found.stages, problem.digest)
    ways: list[Plans] = [_as_before(found, how), *([] if found.start.lost else [how.again])]
    return how.finish(problem, placement, provenance, choose, *ways, quick=quick, lost_ranks=lost)


def _as_before(found: Next, how: How) -> Plans:
    """Return how some layers are planned again, each with as many transfers at most as any of them took."""
    start, lost = found.start.placement, found.start.lost
    arrived = count_transfers(start, found.placement, lost)

    def plan(problem: PlacementProblem, layers: NDArray[np.int64]) -> Placement:
        """Return the next placement of some layers, for as many transfers as the plan takes."""
        table = start.physical_to_logical[layers]
        current = Placement(table, start.num_ranks, start.num_logical_experts)
        within = Budget(int(arrived[layers].max()), lost_ranks=lost)
        return next_placement(problem, current, within, how).placement

    return plan
