"""A plan and its schedule, made in a thread of its own beside the engine."""

from __future__ import annotations

import threading
import time

from equipoise.errors import EquipoiseError
from equipoise.metrics import balancedness
from equipoise.migration.schedule import LinkSpeeds, MigrationSchedule
from equipoise.online.policy import Outlook
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem
from equipoise.robust.scenarios import expected_balancedness, expected_busiest
from equipoise.solver import solve
from equipoise.threads import beside_others

__all__ = ["TOKEN", "Planning", "look_ahead", "plan_and_schedule"]

TOKEN = 1024  # what one token counts for in the load of a problem that a balancer plans


def plan_and_schedule(
    problem: PlacementProblem,
    current: Placement,
    max_transfers: int | None,
    lost_ranks: tuple[int, ...] = (),
    bytes_per_expert: int = 0,
) -> tuple[Plan, MigrationSchedule]:
    """Return the next plan and the way there, on one thread that lets others have the interpreter's lock.

    Experts that no slot of ``current`` holds get one beyond ``max_transfers``, a transfer each. Arguments and errors
    are otherwise those of ``equipoise.solve`` and ``MigrationSchedule``.
    """
    if max_transfers is not None and not current.replica_count.all():
        max_transfers += int((current.replica_count == 0).sum(axis=1).max())
    with beside_others():
        plan = solve(problem, current=current, max_transfers=max_transfers, lost_ranks=lost_ranks, threads=1)
        nodes = problem.cluster.num_nodes
        schedule = MigrationSchedule(
            current, plan.placement, nodes, lost_ranks, bytes_per_expert=bytes_per_expert, threads=1
        )
    return plan, schedule


def look_ahead(
    current: Placement,
    problem: PlacementProblem,
    plan: Plan,
    schedule: MigrationSchedule,
    links: LinkSpeeds | None,
    step_seconds: float,
) -> Outlook:
    """Return what is known of a plan, made by a balancer for ``problem`` in ``TOKEN`` a token, when it is weighed."""
    (now, tokens), (then, planned) = (_expected(problem, placement) for placement in (current, plan.placement))
    return Outlook(now, then, tokens, planned, schedule.num_transfers, schedule.seconds(links), step_seconds)


def _expected(problem: PlacementProblem, placement: Placement) -> tuple[float, float]:
    """Return the balancedness, averaged over layers, and the tokens of the busiest ranks, that are expected next."""
    if problem.forecast is None:
        carried = placement.rank_load(problem.load)
        return float(balancedness(carried).mean()), float(carried.max(axis=1).sum()) / TOKEN
    held = placement.physical_to_logical.reshape(problem.num_layers, placement.num_ranks, -1)
    busiest = expected_busiest(problem.forecast, held, threads=1)
    tokens = problem.load.sum(axis=1) / placement.num_ranks / TOKEN
    return float(expected_balancedness(problem.forecast, held, threads=1).mean()), float((busiest * tokens).sum())


class Planning:
    """One plan being made.

    Attributes
    ----------
    problem : PlacementProblem
    thread : threading.Thread
        What follows is valid once it has ended.
    plan, schedule
        As ``plan_and_schedule`` returns them, or None after an error.
    error : EquipoiseError or None
        Why no plan could be made.
    bug : Exception or None
        Anything else that was raised, to be raised again by whoever looks.
    seconds : float
        What it took.
    """

    def __init__(
        self,
        problem: PlacementProblem,
        current: Placement,
        max_transfers: int | None,
        lost_ranks: tuple[int, ...],
        bytes_per_expert: int,
    ) -> None:
        self.problem = problem
        self.plan: Plan | None = None
        self.schedule: MigrationSchedule | None = None
        self.error: EquipoiseError | None = None
        self.bug: Exception | None = None
        self.seconds = 0.0
        arguments = (current, max_transfers, lost_ranks, bytes_per_expert)
        self.thread = threading.Thread(target=self._run, args=arguments, name="equipoise-planning", daemon=True)
        self.thread.start()

    def _run(self, current: Placement, most: int | None, lost: tuple[int, ...], size: int) -> None:
        begin = time.perf_counter()
        try:
            self.plan, self.schedule = plan_and_schedule(self.problem, current, most, lost, size)
        except EquipoiseError as error:
            self.error = error
        except Exception as error:
            self.bug = error
        self.seconds = time.perf_counter() - begin
