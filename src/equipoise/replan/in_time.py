"""The next placement in time: planned anew, with ranks, nodes, slots and dormant replicas such that most stays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InfeasibleError, InvalidInputError
from equipoise.how import How
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem
from equipoise.replan.active import fill_dormant, match_active
from equipoise.replan.budget import Budget
from equipoise.replan.in_force import InForce
from equipoise.replan.keep_slots import in_their_slots
from equipoise.replan.kept_in_time import keep_layers
from equipoise.replan.remainder import count_transfers
from equipoise.strategies import Found
from equipoise.timed import Timed, find_in_time, prove_in_time

__all__ = ["refuse_limits", "replan_in_time"]

Ints = NDArray[np.int32]
Int64s = NDArray[np.int64]


def replan_in_time(problem: PlacementProblem, current: Any, budget: Budget, how: How) -> Plan:
    """Return the next plan of a problem with a latency model, from what is in force; see ``equipoise.solve``.

    Notes
    -----
    The times and bounds are those of the plan without ``current``, for the ranks that are left. Ranks are alike, so
    which of them takes over which of the planned active sets is chosen such that as few weights as possible move, and
    so is what sleeps: where a slot is not needed, its rank keeps an expert that it holds. In a hierarchical problem
    ranks change places within their node, and nodes as a whole. What stays on its rank keeps its slot.

    By ``min_gain`` and ``max_layers`` whole layers keep their weights where they are, each with its best active
    replicas, and are certified as they are: see ``equipoise.replan.kept_in_time``.

    Raises
    ------
    InvalidInputError
        If the budget limits transfers.
    InfeasibleError
        If the ranks that are left cannot hold every expert, or are spread unevenly over nodes that keep groups whole.
    """
    refuse_limits(budget)
    start = InForce.of(problem, current, budget.lost_ranks)
    smaller = start.problem_of_those_left()
    if smaller is None:
        raise InfeasibleError(
            "the ranks that are left are spread unevenly over nodes that keep expert groups whole, and problem has a "
            "latency model; pass num_expert_groups=None, or re-plan problem.in_tokens."
        )
    found = _moving_little(find_in_time(smaller, how), smaller, start)
    if budget.keeps_layers and start.is_as_asked:
        found = keep_layers(found, start, budget, current)
    placement = Placement(found.table, problem.cluster.num_ranks, problem.num_logical_experts)
    moved = int(count_transfers(start.placement, placement, start.lost).sum())
    lost = tuple(rank for rank in start.lost if rank < problem.cluster.num_ranks)
    stages = {**found.tokens.stages, "transfers": moved}
    if budget.keeps_layers:
        found = dataclasses.replace(found, tokens=_recorded(found.tokens, budget))
    return prove_in_time(problem, found, how.seed, stages, lost)


def refuse_limits(budget: Budget) -> None:
    """Insist that no limit is on single transfers."""
    for name in ("max_transfers", "max_transfers_total"):
        if getattr(budget, name) is not None:
            raise InvalidInputError(
                f"{name} is {getattr(budget, name)}, and problem has a latency model, with which layers are planned "
                "anew or stay: limit them with max_layers or min_gain, or re-plan problem.in_tokens."
            )


def _recorded(tokens: Found, budget: Budget) -> Found:
    """Return the same with the budget as the strategy that makes it again."""
    anew = {"strategy": tokens.strategy.name, **dataclasses.asdict(tokens.strategy)}
    return dataclasses.replace(tokens, strategy=dataclasses.replace(budget, anew=anew))


def _moving_little(found: Timed, smaller: PlacementProblem, start: InForce) -> Timed:
    """Return the same plan on all ranks of ``start``, of which ``smaller`` has those left, where least moves."""
    ranks, none = smaller.cluster.num_ranks, len(found.active)
    nodes = smaller.cluster.num_nodes if smaller.is_hierarchical else 1
    # From which batch on each slot is active, by number: it is so in all larger ones.
    level = (none - found.active.sum(axis=0)).reshape(len(found.table), ranks, -1)
    held = np.where(level < none, found.table.reshape(level.shape), np.int32(-1))
    old, experts = _held_by_those_left(start), smaller.num_logical_experts
    source = match_active(held, old, experts, nodes)[:, :, None]
    held, level = (np.take_along_axis(each, source, axis=1) for each in (held, level))
    fill_dormant(held, old, found.in_time.tokens[-1] / _count(held, experts), nodes)
    found.in_time.fill(found.in_time.ordered[-1], held)
    held, level = _on_all_ranks(held, start, -1), _on_all_ranks(level, start, none)
    table = in_their_slots(held, start.placement)
    level = _following(level, held, table.reshape(held.shape)).reshape(table.shape)
    return dataclasses.replace(found, table=table, active=level <= np.arange(none)[:, None, None])


def _count(held: Ints, experts: int) -> Int64s:
    """Return how many slots hold each expert [layers, experts]."""
    cell = np.arange(len(held))[:, None, None] * (experts + 1) + held + 1  # the first column is that of empty slots
    number = np.bincount(cell.ravel(), minlength=len(held) * (experts + 1))
    return np.asarray(number.reshape(len(held), -1)[:, 1:])


def _held_by_those_left(start: InForce) -> Ints:
    """Return what the ranks that are left hold in the placement in force [layers, ranks, slots]; new ones nothing."""
    old = start.slots
    held = np.full((len(old), len(start.alive), old.shape[2]), -1, np.int32)
    there = start.alive < old.shape[1]
    held[:, there] = old[:, start.alive[there]]
    return held


def _on_all_ranks(of_those_left: NDArray[Any], start: InForce, otherwise: int) -> NDArray[Any]:
    """Return what the ranks that are left have [layers, ranks, slots] for all ranks of the problem."""
    layers, _, slots = of_those_left.shape
    whole = np.full((layers, start.problem.cluster.num_ranks, slots), otherwise, of_those_left.dtype)
    whole[:, start.alive] = of_those_left
    return whole


def _following(level: Int64s, held: Ints, moved: Ints) -> Int64s:
    """Return the levels of slots that change places within their ranks, from ``held`` to ``moved``."""
    before, after = (np.argsort(each, axis=2, kind="stable") for each in (held, moved))
    follows = np.empty_like(level)
    np.put_along_axis(follows, after, np.take_along_axis(level, before, axis=2), axis=2)
    return follows
