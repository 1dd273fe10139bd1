"""From an engine's counts, and the placement that it holds now, to the placement that it should hold next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, as_names, count
from equipoise.arrays import as_load, as_numpy, as_windows
from equipoise.certificate import Certificate, certify
from equipoise.dispatch import Shares, share
from equipoise.engines.sentences import Balance, held_up
from equipoise.engines.settings import Settings
from equipoise.errors import InvalidInputError, listed, shown
from equipoise.forecasting import forecast
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import Cluster, PlacementProblem

if TYPE_CHECKING:
    from equipoise.replan.replan import Next as Planned

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
    seen : float64 array, shape (num_layers, num_logical_experts)
        The load that was handed over, its windows summed. That of the problem is what is expected of the next.
    shares : Shares or None, default None
        What part of its expert's tokens each slot is to get; None is even parts.
    was : Shares or None, default None
        What the slots of ``held`` got.
    """

    problem: PlacementProblem
    placement: Placement
    held: Placement | None
    stayed: int
    how: str
    seen: NDArray[np.float64]
    shares: Shares | None = None
    was: Shares | None = None

    @cached_property
    def certificate(self) -> Certificate:
        """How far the placement can be from the best one: computed when asked for, since an engine waits for a plan."""
        return certify(self.problem, self.placement, shares=self.shares)

    def rank_load(self) -> NDArray[np.float64]:
        """What each rank is to carry, float64 [layers, ranks]."""
        from equipoise.kernels.recount.numba import recount

        if self.shares is not None:
            return self.shares.rank_load(self.problem.load)
        return recount(self.placement.physical_to_logical, self.problem.load, self.placement.num_ranks, 1, 1)[0]


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
    load : array, shape (num_layers, num_logical_experts) or (num_windows, num_layers, num_logical_experts)
        Any kind that ``PlacementProblem`` takes; a layer may be all zeros. From several windows, oldest first, the next
        is forecast, and the plan is for what may come.
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
    windows = as_windows(load)
    asked = forecast(windows) if len(windows) > 1 else windows
    problem = PlacementProblem(asked, cluster, groups if hierarchical else None)
    seen = as_load(windows)
    how = settings.how()
    if current is None:
        found, placement = how.place(problem)
        shares = share(placement, problem.load) if settings.shares else None
        return Next(problem, placement, None, 0, f"{found.strategy.name}, {found.implementation}", seen, shares)
    held = _as_placement(current, cluster.slots_per_rank, problem.num_logical_experts)
    then = next_placement(problem, held, settings.budget(separate), how)
    name = f"{how.strategy.name}, {then.implementation}"
    if not settings.shares:
        return Next(problem, then.placement, held, int(then.stays.sum()), name, seen)
    shares, stays = _where_new_shares_are_enough(then, settings.min_gain)
    return Next(problem, shares.placement, held, int(stays.sum()), name, seen, shares)


def _where_new_shares_are_enough(then: Planned, min_gain: float) -> tuple[Shares, NDArray[np.bool_]]:
    """Return the best shares for the next placement, and the layers that keep the one in force.

    These are the layers that can stay as they are, every expert with a slot, and where what moves would take less than
    ``min_gain`` off the busiest rank with the best shares for the placement in force.
    """
    problem, current = then.start.problem, then.start.placement
    shares = share(then.placement, problem.load)
    if not then.start.is_as_asked:
        return shares, then.stays
    kept = share(current, problem.load)
    now, next_ = (each.rank_load(problem.load).max(axis=1) for each in (kept, shares))
    whole = (current.replica_count > 0).all(axis=1) & (current.physical_to_logical >= 0).all(axis=1)
    stays = then.stays | (whole & _keeps_groups(problem, current) & (next_ >= now * (1 - min_gain)))
    table = np.where(stays[:, None], current.physical_to_logical, then.placement.physical_to_logical)
    placement = Placement(table, current.num_ranks, current.num_logical_experts)
    return Shares(np.where(stays[:, None], kept.values, shares.values), placement), stays


def _keeps_groups(problem: PlacementProblem, placement: Placement) -> NDArray[np.bool_]:
    """Whether each layer has its expert groups whole on nodes, where they must be."""
    from equipoise.kernels.recount import TORN, UNEVEN
    from equipoise.kernels.recount.numba import recount

    if not problem.is_hierarchical:
        return np.ones(problem.num_layers, dtype=np.bool_)
    assert problem.num_expert_groups is not None
    cluster = problem.cluster
    asked = problem.load, cluster.num_ranks, cluster.num_nodes, problem.num_expert_groups
    keeps: NDArray[np.bool_] = recount(placement.physical_to_logical, *asked)[1] & (TORN | UNEVEN) == 0
    return keeps


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
