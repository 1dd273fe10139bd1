"""From an engine's counts, and the placement that it holds now, to the placement that it should hold next."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.certificate import Certificate
from equipoise.engines.settings import Settings
from equipoise.errors import InvalidInputError
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import Cluster, PlacementProblem

__all__ = ["Replan", "SavedPlans", "replan"]


@dataclass(frozen=True, eq=False)
class Replan:
    """The next placement, and how good it is on the load that it was made for.

    Attributes
    ----------
    physical_to_logical : int32 array, shape (num_layers, num_slots)
    certificate : Certificate
    stayed : int
        Layers that keep the placement in force, because none better was found.
    how : str
        For people: what planned.
    """

    physical_to_logical: NDArray[np.int32]
    certificate: Certificate
    stayed: int
    how: str

    def summary(self) -> str:
        """Return one line for a log."""
        layers, slots = self.physical_to_logical.shape
        return (
            f"{layers} layers, {slots} slots; gap to the proved lower bound mean {self.certificate.mean_gap:.3%}, "
            f"worst layer {self.certificate.max_gap:.3%} ({self.how})"
        )


def replan(
    load: Any,
    num_slots: int,
    num_groups: int | None,
    num_nodes: int,
    num_ranks: int,
    settings: Settings,
    current: Any = None,
) -> Replan:
    """Plan as an engine asks for it, and change no more of the placement in force than the plan needs.

    Parameters
    ----------
    load : array, shape (num_layers, num_logical_experts)
        Any kind that ``PlacementProblem`` takes; a layer may be all zeros.
    num_slots, num_groups, num_nodes, num_ranks
        As in the published ``rebalance_experts``: hierarchical if ``num_nodes`` divides ``num_groups``,
        global otherwise. None or 0 groups are one group.
    settings : Settings
    current : int array, shape (num_layers, any number of slots), or None
        The placement in force; see ``keep_slots``.

    Returns
    -------
    Replan
        The same for the same arguments in every process. No rank holds an expert twice as long as a
        placement without that exists. With ``current``: the ranks of a node are relabelled so that most
        experts stay, an expert that stays on its rank keeps its slot, and a layer keeps its placement whole
        if the plan would not make its busiest rank lighter.

    Raises
    ------
    PreconditionError
        An ``AssertionError``: if the counts do not divide, or there are fewer slots than experts.
    InvalidInputError
        If the load or a setting breaks its rule.
    """
    from equipoise.migration import keep_slots, match_ranks
    from equipoise.solver import solve

    groups = num_groups or 1
    hierarchical = groups % num_nodes == 0
    cluster = Cluster.from_slots(num_ranks, num_slots, num_nodes if hierarchical else 1)
    problem = PlacementProblem(load, cluster, groups if hierarchical else None)
    options = (
        settings.parameters if settings.strategy is None else {"strategy": settings.strategy, **settings.parameters}
    )
    plan = solve(problem, threads=settings.threads, **options)
    table, certificate, stayed = plan.placement.physical_to_logical, plan.certificate, 0
    how = f"{plan.provenance.strategy}, {plan.provenance.implementation}"
    if current is not None:
        table = match_ranks(table, current, num_ranks, cluster.num_nodes, settings.threads)
        table = keep_slots(table, current, num_ranks)
        stays, largest = _no_worse(problem, current, certificate)
        stayed = int(stays.sum())
        if stayed:
            table[stays] = np.asarray(current)[stays]
            certificate = dataclasses.replace(certificate, max_rank_load=largest)
    return Replan(table, certificate, stayed, how)


def _no_worse(
    problem: PlacementProblem, current: Any, certificate: Certificate
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which layers of ``current`` already are as good as the plan, and the busiest rank of the better one."""
    table = np.asarray(current)
    layers, ranks = problem.num_layers, problem.cluster.num_ranks
    largest = certificate.max_rank_load
    # Groups on nodes are the planner's business: a hierarchical placement in force is always planned anew.
    if table.shape != (layers, problem.cluster.num_slots) or problem.cluster.num_nodes > 1:
        return np.zeros(layers, dtype=np.bool_), largest
    # A placement that lost a rank has -1, and one from elsewhere may have ids of another model.
    valid: NDArray[np.bool_] = np.all((table >= 0) & (table < problem.num_logical_experts), axis=1)
    placement = Placement(np.where(valid[:, None], table, 0), ranks, problem.num_logical_experts)
    valid &= (placement.replica_count > 0).all(axis=1) & (placement.num_duplicates == 0)
    now = placement.rank_load(problem.load).max(axis=1)
    stays = valid & (now <= largest)
    return stays, np.where(stays, now, largest)


@dataclass(frozen=True)
class SavedPlans:
    """Plans to hold instead of planning; the one whose shape fits the call is returned.

    An engine may plan for two models in one process (a draft model beside the main one), so there may be
    several, with different shapes.
    """

    plans: tuple[tuple[str, Plan], ...]

    @classmethod
    def read(cls, paths: tuple[str, ...]) -> SavedPlans:
        """Read the plans.

        Raises
        ------
        FileFormatError
            If one cannot be read.
        """
        return cls(tuple((path, Plan.load(path)) for path in paths))

    def find(self, num_layers: int, num_experts: int, num_slots: int, num_ranks: int) -> Plan:
        """Return the plan for this shape.

        Raises
        ------
        InvalidInputError
            If none fits. The message says what each has and what is asked.
        """
        asked = (num_layers, num_experts, num_slots, num_ranks)
        known = []
        for path, plan in self.plans:
            placement = plan.placement
            has = (placement.num_layers, placement.num_logical_experts, placement.num_slots, placement.num_ranks)
            if has == asked:
                return plan
            known.append(f"{path} has {_shape(*has)}")
        raise InvalidInputError(
            f"no saved plan fits this engine, which asks for {_shape(*asked)}: {'; '.join(known)}. "
            "Plan again for this model and cluster, or unset the variable to plan from the live load."
        )


def _shape(layers: int, experts: int, slots: int, ranks: int) -> str:
    return f"{layers} MoE layers of {experts} experts in {slots} slots on {ranks} ranks"
