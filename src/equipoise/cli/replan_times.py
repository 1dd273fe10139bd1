"""Microseconds before and after, as ``equipoise replan --gpu`` shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equipoise.cli import options

if TYPE_CHECKING:
    from equipoise.migration.schedule import MigrationSchedule
    from equipoise.placement import Placement
    from equipoise.plan import Plan
    from equipoise.problem import PlacementProblem
    from equipoise.replan.budget import Budget
    from equipoise.replan.in_force import InForce

__all__ = ["Times", "planned_in_time"]


@dataclass(frozen=True)
class Times:
    """What the busiest rank is expected to take, in microseconds, mean of layers, for each batch size.

    Attributes
    ----------
    tokens_per_rank : tuple of float
    all_active : bool
        Whether ``before`` is with all replicas active; else it is with the shares of the plan in force.
    before : tuple of float or None
        Of the placement in force; None where an expert that gets tokens has no slot.
    after : tuple of float
        Of the plan.
    """

    tokens_per_rank: tuple[float, ...]
    all_active: bool
    before: tuple[float | None, ...]
    after: tuple[float, ...]

    def summary(self) -> str:
        """Return a line for each batch size."""
        title = f"in force, {'all active' if self.all_active else 'its shares'}"
        lines = [f"tokens a rank   {title:>20}   planned   us a layer, the busiest rank's, mean of layers"]
        for size, before, after in zip(self.tokens_per_rank, self.before, self.after, strict=True):
            change = "-" if not before else f"{after / before - 1:+.1%}"
            lines.append(f"{size:13g} {'-' if before is None else f'{before:.1f}':>22} {after:9.1f}   {change}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "tokens_per_rank": list(self.tokens_per_rank),
            "microseconds_in_force": list(self.before),
            "microseconds": list(self.after),
        }


def planned_in_time(
    timing: options.Timing,
    problem: PlacementProblem,
    current: Plan | Placement,
    budget: Budget,
    bytes_per_expert: int | None,
    threads: int | None,
) -> tuple[Times, Plan, MigrationSchedule]:
    """Return what a plan in time saves, the plan, and how it is reached from what is in force."""
    from equipoise.how import How
    from equipoise.migration.schedule import MigrationSchedule
    from equipoise.replan.in_force import InForce
    from equipoise.replan.in_time import replan_in_time

    start, size = InForce.of(problem, current, budget.lost_ranks), bytes_per_expert or 0
    asked = timing.asked(problem, len(start.alive))
    found = replan_in_time(asked, current, budget, How.of(threads=threads))
    assert found.time is not None
    after = tuple(found.time.mean_max_rank_time.tolist())
    times = Times(timing.tokens_per_rank, *_in_force(asked, current, start), after)
    nodes, moved = problem.cluster.num_nodes, (start.placement, found.placement)
    schedule = MigrationSchedule(*moved, nodes, start.lost, bytes_per_expert=size, threads=threads)
    return times, found, schedule


def _in_force(
    problem: PlacementProblem, current: Plan | Placement, start: InForce
) -> tuple[bool, tuple[float | None, ...]]:
    """Return what is left of a placement takes for each batch size, and before it whether with all replicas active.

    It is not where a plan in time is in force, of which no rank is lost: that has shares.
    """
    from equipoise.advice import mean_busiest
    from equipoise.checker import recount_time
    from equipoise.dispatch import Shares
    from equipoise.placement import Placement
    from equipoise.plan import Plan

    held, slots, sizes = start.placement, start.slots, problem.batch_sizes
    there = Placement(slots.reshape(len(slots), -1), held.num_ranks, held.num_logical_experts)
    if ((problem.load > 0) & (there.replica_count == 0)).any():
        return True, (None,) * len(sizes)
    shares, all_active = [Shares.even(there)] * len(sizes), True
    if isinstance(current, Plan) and current.time is not None and not start.lost:
        shares, all_active = [current.shares_for(size) for size in sizes], False
    each = zip(shares, sizes, strict=True)
    times = tuple(mean_busiest(recount_time(problem, there, share, size), problem) for share, size in each)
    return all_active, times
