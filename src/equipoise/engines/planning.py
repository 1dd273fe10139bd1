"""From an engine's counts, and the placement that it holds now, to the placement that it should hold next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from equipoise.arguments import as_instance, as_names, count
from equipoise.arrays import as_numpy
from equipoise.certificate import Certificate, certify
from equipoise.engines.sentences import Balance, held_up
from equipoise.engines.settings import Settings
from equipoise.errors import InvalidInputError, listed, shown
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import Cluster, PlacementProblem

__all__ = ["Next", "SavedPlans", "describe", "plan_next"]


@dataclass(frozen=True, eq=False)
class Next:
    """The next placement, and the problem that it answers.

    Attributes
    ----------
    problem : PlacementProblem
    placement : Placement
    held : Placement or None
        What was in force, None if that is not known.
    stayed : int
        Layers that keep the placement in force because the limits say so.
    how : str
        For people: what planned.
    """

    problem: PlacementProblem
    placement: Placement
    held: Placement | None
    stayed: int
    how: str

    @cached_property
    def certificate(self) -> Certificate:
        """How far the placement can be from the best one: computed when asked for, since an engine waits for a plan."""
        return certify(self.problem, self.placement)


def plan_next(
    load: Any,
    num_slots: int,
    num_groups: int | None,
    num_nodes: int,
    num_ranks: int,
    settings: Settings,
    current: Any = None,
    *,
    separate: bool = False,
) -> Next:
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
        The placement in force, with as many slots a rank; -1 is an empty slot. It may be narrower (ranks were added)
        or wider (the last ranks leave).
    separate : bool, default False
        As in ``equipoise.replan.budget.Budget``: whether a layer stays as it is rather than have an expert twice on a
        rank.

    Returns
    -------
    Next
        The same for the same arguments in every process. With ``current`` no more moves than pays, by the limits of
        ``settings``: see ``Settings.budget``. Whatever the limits, every slot holds an expert and every expert has a
        slot.

    Raises
    ------
    PreconditionError
        An ``AssertionError``: if the counts do not divide, or there are fewer slots than experts.
    InvalidInputError
        If the load, a setting or the placement in force breaks its rule; or whole groups on nodes were asked for, and
        the nodes do not divide them.
    """
    from equipoise.replan.replan import next_placement

    as_instance(settings, Settings, "settings", "a Settings(...)")
    groups = 1 if num_groups is None else max(count(num_groups, "num_groups", least=0), 1)
    num_nodes = count(num_nodes, "num_nodes")
    hierarchical = settings.hierarchy != "global" and groups % num_nodes == 0
    if settings.hierarchy == "hierarchical" and not hierarchical:
        raise InvalidInputError(
            f"hierarchical planning was asked for, and {groups} expert groups do not spread evenly over {num_nodes} "
            "nodes. Set the hierarchy to auto or global."
        )
    cluster = Cluster.from_slots(num_ranks, num_slots, num_nodes if hierarchical else 1)
    problem = PlacementProblem(load, cluster, groups if hierarchical else None)
    how = settings.how()
    if current is None:
        found, placement = how.place(problem)
        return Next(problem, placement, None, 0, f"{found.strategy.name}, {found.implementation}")
    held = _as_placement(current, cluster.slots_per_rank, problem.num_logical_experts)
    then = next_placement(problem, held, settings.budget(separate), how)
    return Next(problem, then.placement, held, int(then.stays.sum()), f"{how.strategy.name}, {then.implementation}")


def _as_placement(current: Any, slots_per_rank: int, num_experts: int) -> Placement:
    """Return an engine's table of the slots in force, whose ranks may be fewer or more than those it asks for."""
    table = as_numpy(current, "current")
    if table.ndim != 2:
        raise InvalidInputError(f"current has shape {table.shape}; it must be (layers, slots).")
    missing = -table.shape[1] % slots_per_rank
    if missing:
        table = np.pad(table, ((0, 0), (0, missing)), constant_values=-1)
    return Placement(table, max(table.shape[1] // slots_per_rank, 1), num_experts)


def describe(found: Next | Plan, prefix: str | None = None) -> str:
    """Return what is said of a model's first plan: shape, balance, gap, what holds the busiest ranks up, what planned.

    ``prefix`` is that of the variables, to name one that helps.
    """
    if not isinstance(found, Next | Plan):
        raise InvalidInputError(f"found is a {type(found).__name__}; pass a Plan, or what plan_next returns.")
    placement, certificate = found.placement, found.certificate
    if isinstance(found, Next):
        mean, how = found.problem.load.sum(axis=1) / placement.num_ranks, found.how
    else:
        mean, how = found.metrics.mean_rank_load, f"a saved plan by {found.provenance.strategy}"
    each = np.divide(mean, certificate.max_rank_load, out=np.ones_like(mean), where=certificate.max_rank_load > 0)
    return (
        f"{placement.num_layers} layers, {placement.num_slots} slots; balancedness "
        f"{Balance(float(each.mean()), float(each.min()))}; gap to the proved lower bound mean "
        f"{certificate.mean_gap:.3%}, worst layer {certificate.max_gap:.3%}{held_up(certificate, mean, prefix)} ({how})"
    )


@dataclass(frozen=True)
class SavedPlans:
    """Plans to hold instead of planning; the one whose shape fits the call is returned.

    An engine may plan for two models in one process (a draft model beside the main one), so there may be
    several, with different shapes.
    """

    plans: tuple[tuple[str, Plan], ...]

    def __post_init__(self) -> None:
        pairs: Any = self.plans
        if not isinstance(pairs, tuple) or not all(
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Plan) for pair in pairs
        ):
            raise InvalidInputError(f"plans is {shown(pairs)}; it must be a tuple of paths and plans.")

    @classmethod
    def read(cls, paths: tuple[str, ...]) -> SavedPlans:
        """Read the plans.

        Raises
        ------
        FileFormatError
            If one cannot be read.
        InvalidInputError
            If one leaves slots empty, which no engine that holds a plan can.
        """
        found = tuple((path, Plan.load(path)) for path in as_names(paths, "paths"))
        for path, plan in found:
            if plan.placement.physical_to_logical.min() < 0:
                lost = f", those of the lost ranks {listed(plan.lost_ranks)}," if plan.lost_ranks else ""
                raise InvalidInputError(
                    f"{path} leaves slots{lost} empty, and an engine fills all. Plan for the ranks that are there, or "
                    "re-plan with the ranks back: equipoise replan --restored-ranks."
                )
        return cls(found)

    def find(self, num_layers: int, num_experts: int, num_slots: int, num_ranks: int) -> Plan:
        """Return the plan for this shape.

        Raises
        ------
        InvalidInputError
            If none fits. The message says what each has and what is asked.
        """
        asked = (
            count(num_layers, "num_layers"), count(num_experts, "num_experts"), count(num_slots, "num_slots"),
            count(num_ranks, "num_ranks"),
        )  # fmt: skip
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
    return f"{shown(layers)} MoE layers of {shown(experts)} experts in {shown(slots)} slots on {shown(ranks)} ranks"
