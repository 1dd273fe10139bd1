"""The loop beside an engine: record, plan in the background, weigh, and migrate or wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch import Shares
from equipoise.errors import DisagreementError, InvalidInputError, MigrationError, RanksLostError
from equipoise.forecasting import Forecast, forecast
from equipoise.metrics import balancedness
from equipoise.migration.schedule import LinkSpeeds, MigrationSchedule
from equipoise.migration.weights import check_restore
from equipoise.online.counters import Counters
from equipoise.online.counts import as_expert_counts
from equipoise.online.movers import Movers
from equipoise.online.planning import TOKEN, Planning, look_ahead
from equipoise.online.policy import Outlook, Policy, TokenGain
from equipoise.online.settings import Settings, as_in_force, as_ranks, check_window
from equipoise.online.window import SlidingSum, Window, load_of
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import Cluster, PlacementProblem
from equipoise.replan.in_force import check_lost_ranks

__all__ = ["Balancer", "Decision"]

KEPT = 17  # loads of checks that shares follow: as many as give all the errors that are looked at


@dataclass(frozen=True)
class Decision:
    """What was decided at a check, and why.

    Attributes
    ----------
    step : int
        The step at which it was decided.
    migrate : bool
    reason : str
    outlook : Outlook or None
        None if no plan could be made.
    """

    step: int
    migrate: bool
    reason: str
    outlook: Outlook | None


class Balancer:
    """Keeps a placement fit for the load that it sees.

    Parameters
    ----------
    placement : Placement or Plan
        In force at the start.
    cluster : Cluster
    num_expert_groups : int or None, default None
    window : Window or None, default None
        What of the past counts. None keeps the steps between two checks as a window, forecasts the next from those of
        the past checks, and plans for what may come: see ``equipoise.forecast``. Any other plans for what it returns.
    policy : Policy or None, default None
        When to migrate; None is ``TokenGain()``.
    check_every : int, default 100
        Steps from one check to the next.
    max_transfers : int or None, default 16
        Per layer and migration; experts without a slot get one beyond it. None plans anew each time.
    bytes_per_expert : int, default 0
        Of one layer; taken from ``weights`` where these are given.
    links : LinkSpeeds or None, default None
        For the estimate of what a migration costs.
    weights : sequence over layers of sequences of tensors, or None, default None
        What this rank holds, as ``Migration`` takes it. Without weights, a migration is a change of ``placement``,
        and moving is up to the caller, who then loads what no rank holds.
    restore : callable or None, default None
        As in ``Migration``; with peers, on every rank or on none. Without it, where weights are given and no rank holds
        some expert, checks end as failures and nothing moves.
    peers : Peers or None, default None
        The other ranks. With peers, counts are those of this rank's own tokens and are summed over all ranks; without,
        they are the counts of all tokens.
    rounds_per_step : int or None, default None
        Rounds of transfers made in one ``step``; None is a layer.
    timeout : float, default 30.0
        As in ``Migration``.
    name : str or None, default None
        Label of the gauges; None is a number. While another balancer of this process has that name, a number follows.

    shares : str, default "even"
        ``"best"``: every check gives the placement in force new shares, and weights move only where a plan is worth it
        compared with that. They follow the loads of the last checks, nearer to even the less these told of the next.

    Attributes
    ----------
    placement : Placement
        What to route by now. It changes only inside ``step``.
    shares : Shares or None
        What part of its expert's tokens each slot of ``placement`` is to get; None is even parts, as while weights are
        on the move. It changes only inside ``step``.
    counters : Counters
    decisions : deque of Decision
        The last hundred, the latest last.

    Raises
    ------
    InvalidInputError
        If an argument is not what it is to be, or they do not fit each other.
    IndivisibleError
        If the groups do not divide the experts.

    Notes
    -----
    With peers, every rank must call ``record`` and ``step`` equally often. All ranks then decide alike: they plan from
    the same sums, begin and end planning at the same step, and weigh with the step time of rank 0.

    Planning runs in a thread of its own on one core, almost all of it without the interpreter's lock.
    """

    def __init__(
        self,
        placement: Placement | Plan,
        cluster: Cluster,
        *,
        num_expert_groups: int | None = None,
        window: Window | None = None,
        policy: Policy | None = None,
        check_every: int = 100,
        max_transfers: int | None = 16,
        bytes_per_expert: int = 0,
        links: LinkSpeeds | None = None,
        weights: Sequence[Sequence[Any]] | None = None,
        peers: Any = None,
        rounds_per_step: int | None = None,
        timeout: float = 30.0,
        name: str | None = None,
        restore: Any = None,
        shares: str = "even",
    ) -> None:
        policy = TokenGain() if policy is None else policy
        told = Settings(num_expert_groups, policy, check_every, max_transfers, bytes_per_expert, links,
                        rounds_per_step, timeout, shares)  # fmt: skip
        self._told, self.cluster = told, cluster
        self.shares: Shares | None = getattr(placement, "shares", None) if shares == "best" else None
        self.placement = as_in_force(placement, cluster, told.num_expert_groups)
        self._movers = Movers(self.placement, peers, weights, restore, timeout=told.timeout)
        self._bytes = told.bytes_per_expert or self._movers.bytes_per_expert
        self._window: Window = SlidingSum(told.check_every) if window is None else window
        check_window(self._window)
        self._foresees = window is None
        self._forecast: Forecast | None = None
        self._last: NDArray[np.float64] | None = None
        self.counters = Counters() if name is None else Counters(name=name)
        self.decisions: deque[Decision] = deque(maxlen=100)
        self._migration: Any = None
        self._over: RanksLostError | None = None
        self._planning: Planning | None = None
        self._next_check = told.check_every
        self._past: deque[NDArray[np.float64]] = deque(maxlen=KEPT)
        self._then: Shares | None = None
        self._just_moved = False
        self._clock: deque[float] = deque(maxlen=told.check_every + 1)

    def record(self, counts: Any, *, physical: bool = False) -> None:
        """Take the tokens that one step routed.

        Parameters
        ----------
        counts : array, shape (num_layers, num_logical_experts), or (num_layers, num_slots) if ``physical``
            Numpy or torch, on any device. Finite, not negative, at most 2**53.
        physical : bool, default False
            Whether counts are of slots, by the placement in force, and not of logical experts.

        Raises
        ------
        InvalidInputError
            If the shape or a count is wrong. Nothing is recorded then; with peers, record something else in its stead,
            zeros say, as ranks must record equally often.
        """
        self._window.add(as_expert_counts(counts, self.placement, physical))
        self.counters.steps += 1
        self._clock.append(time.perf_counter())

    def step(self) -> bool:
        """Do what is due between two forward passes; return whether ``placement`` or ``shares`` have changed.

        Quick when nothing is due: one comparison. While a plan is made, with peers, one small sum over the ranks.

        Raises
        ------
        DisagreementError
            On every rank, if they do not have the same plan; nothing moves.
        InvalidInputError
            On every rank, if the window of one of them returns no load of this placement's layers and experts.
        RanksLostError
            On every rank that is left, if a rank does not answer; now, or when it next has to agree with the others.
            ``placement`` is what is in force: as it was, or, if weights were on the move, what the ranks that are
            left hold. It is raised again until ``resume`` names a group of those; ``record`` goes on counting.
        """
        if self._over is not None:
            raise self._over
        try:
            return self._step()
        except RanksLostError as error:
            self._over = error
            self._route_by(self.placement if error.placement is None else error.placement)
            raise

    def _step(self) -> bool:
        if self._migration is not None:
            return self._move()
        if self._planning is not None:
            ready = self._movers.all_of(not self._planning.thread.is_alive(), self.placement)
            return self._weigh() if ready else False
        if self.counters.steps >= self._next_check:
            self._begin_planning()
        return False

    @property
    def is_migrating(self) -> bool:
        """Whether weights are on the move: ``placement`` is then between two plans."""
        return self._migration is not None

    def resume(
        self,
        peers: Any,
        weights: Sequence[Sequence[Any]] | None,
        lost_ranks: Iterable[int],
        restore: Any = None,
    ) -> None:
        """Go on without some ranks, after a ``RanksLostError``, with a new group of those that are left.

        ``lost_ranks`` are all that are gone, those that were lost before among them; what they held is no longer in
        ``placement``. The next step plans. ``restore`` None stands for the one given before.

        Raises
        ------
        InvalidInputError
            As when a balancer is built, or if ``lost_ranks`` names what is no rank; all is then as it was.
        """
        lost = tuple(check_lost_ranks(as_ranks(lost_ranks), self.cluster.num_ranks))
        held = self.placement.physical_to_logical.reshape(self.placement.num_layers, self.cluster.num_ranks, -1).copy()
        held[:, list(lost)] = -1
        table = held.reshape(len(held), -1)
        placement = Placement(table, self.cluster.num_ranks, self.placement.num_logical_experts)
        restore = self._movers.restore if restore is None else restore
        self._movers = Movers(placement, peers, weights, restore, lost, self._told.timeout)
        self._route_by(placement)
        self._migration, self._planning, self._over, self._next_check = None, None, None, self.counters.steps
        self._forecast = None  # which windows the ranks that are left have all seen, nobody needs to know

    def wait(self) -> None:
        """Wait for a plan that is being made, if one is. For tests and the end of a program."""
        if self._planning is not None:
            self._planning.thread.join()

    def _begin_planning(self) -> None:
        self._next_check = self.counters.steps + self._told.check_every
        shape = (self.placement.num_layers, self.placement.num_logical_experts)
        try:
            load = self._movers.add_up(lambda: load_of(self._window, shape), self.placement)
        except InvalidInputError as error:  # a window of the caller's own may return anything
            self._fail(str(error))
            if self._movers.peers is not None:
                raise
            return
        if not (load > 0).any():
            self._decide(False, "there is no load", None)
            return
        # Whole numbers, so that every rank plans from the same bits however sums were made.
        load = np.rint(load * TOKEN)
        try:
            problem = PlacementProblem(self._ahead(load), self.cluster, self._told.num_expert_groups)
        except InvalidInputError as error:  # a window of the caller's own may return anything
            self._fail(str(error))
            return
        lost, most, windows = self._movers.lost, self._told.max_transfers, None
        if self._told.shares == "best":
            self._past.append(load)
            windows = np.stack(self._past)
        self._planning = Planning(problem, self.placement, most, lost, self._bytes, windows)

    def _ahead(self, load: NDArray[np.float64]) -> Any:
        """Return what to plan for after one more window: its forecast, or that window where none is asked for."""
        self._last = load
        if not self._foresees:
            return load
        self._forecast = forecast(load) if self._forecast is None else self._forecast.update(load)
        return self._forecast

    def _weigh(self) -> bool:
        planning, self._planning = self._planning, None
        assert planning is not None
        self.counters.planning_seconds = planning.seconds
        if planning.bug is not None:
            raise planning.bug
        if planning.error is not None:
            return self._fail(str(planning.error))
        plan, schedule = planning.plan, planning.schedule
        assert plan is not None
        assert schedule is not None
        if self._movers.weights is not None:
            try:
                check_restore(self._movers.restore, schedule)
            except InvalidInputError as error:
                return self._fail(str(error))
        seconds = self._movers.from_first(self._step_seconds(), self.placement)
        links, shares = self._told.links, planning.shares
        outlook = look_ahead(self.placement, planning.problem, plan, schedule, links, seconds, shares)
        self.counters.checks += 1
        if self._just_moved:
            assert self._last is not None
            realised = balancedness(self.placement.rank_load(self._last)).mean()
            self._just_moved, self.counters.balancedness_realised = False, float(realised)
        if not (self.placement.replica_count > 0).all():
            migrate, reason = True, "some experts have no slot"
        else:
            migrate, reason = self._told.policy.weigh(outlook)
        if not migrate:
            self._decide(False, reason, outlook)
            return self._refresh(planning.shares)
        return self._begin_migration(plan, schedule, reason, outlook)

    def _refresh(self, shares: Shares | None) -> bool:
        """Take new shares for the placement in force; return whether they differ."""
        if shares == self.shares:
            return False
        self.shares = shares
        self.counters.refreshes += 1
        return True

    def _route_by(self, placement: Placement, shares: Shares | None = None) -> None:
        self.placement, self.shares = placement, shares

    def _begin_migration(self, plan: Plan, schedule: MigrationSchedule, reason: str, outlook: Outlook) -> bool:
        """Begin to move weights, or change the placement at once if there are none; return whether it has changed."""
        movers, self._then = self._movers, plan.shares
        if movers.weights is not None:
            from equipoise.migration.execute import Migration

            try:
                self._migration = Migration(
                    schedule, movers.weights, movers.peers, timeout=self._told.timeout, restore=movers.restore
                )
            except DisagreementError as error:
                self._fail(str(error))
                raise
        else:
            self._route_by(plan.placement, plan.shares)
            self._just_moved = True
        self.counters.migrations += 1
        self.counters.balancedness_before = outlook.balancedness
        self.counters.balancedness_planned = outlook.planned_balancedness
        self.counters.transfers += schedule.num_transfers
        self.counters.bytes += schedule.num_bytes
        self._decide(True, reason, outlook)
        return movers.weights is None

    def _move(self) -> bool:
        try:
            done = self._migration.step(self._told.rounds_per_step)
        except RanksLostError:
            raise
        except MigrationError as error:  # an expert could not be restored; the next check plans from what there is
            self._route_by(self._migration.placement)
            self._migration = None
            self._fail(str(error))
            return True
        self._route_by(self._migration.placement, self._then if done else None)
        if done:
            self._migration = None
            self._just_moved = True
        return True

    def _fail(self, reason: str) -> bool:
        """Record why nothing comes of a check; return that the placement has not changed."""
        self.counters.failures += 1
        return self._decide(False, reason, None)

    def _decide(self, migrate: bool, reason: str, outlook: Outlook | None) -> bool:
        self.counters.skipped += not migrate
        self.decisions.append(Decision(self.counters.steps, migrate, reason, outlook))
        self.counters.publish()
        return migrate

    def _step_seconds(self) -> float:
        """Return the median time from one record to the next: pauses between requests do not count."""
        return float(np.median(np.diff(self._clock))) if len(self._clock) > 1 else 0.0
