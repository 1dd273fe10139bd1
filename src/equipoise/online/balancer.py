"""The loop beside an engine: record, plan in the background, weigh, and migrate or wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_numpy
from equipoise.errors import InvalidInputError, RanksLostError
from equipoise.metrics import balancedness
from equipoise.migration.schedule import LinkSpeeds
from equipoise.online.counters import Counters
from equipoise.online.planning import Planning
from equipoise.online.policy import Outlook, Policy, TokenGain
from equipoise.online.window import SlidingSum, Window
from equipoise.placement import Placement
from equipoise.problem import Cluster, PlacementProblem, count

__all__ = ["Balancer", "Decision"]

Floats = NDArray[np.float64]


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
    placement : Placement
        In force at the start.
    cluster : Cluster
    num_expert_groups : int or None, default None
    window : Window or None, default None
        What of the past counts; None is ``SlidingSum(check_every)``.
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
        and moving is up to the caller.
    peers : Peers or None, default None
        The other ranks. With peers, counts are those of this rank's own tokens and are summed over all ranks; without,
        they are the counts of all tokens.
    rounds_per_step : int or None, default None
        Rounds of transfers made in one ``step``; None is a layer.
    timeout : float, default 30.0
        As in ``Migration``.
    name : str or None, default None
        Label of the gauges; None is a number.

    Attributes
    ----------
    placement : Placement
        What to route by now. It changes only inside ``step``.
    counters : Counters
    decisions : deque of Decision
        The last hundred, the latest last.

    Notes
    -----
    With peers, every rank must call ``record`` and ``step`` equally often. All ranks then decide alike: they plan from
    the same sums, begin and end planning at the same step, and weigh with the step time of rank 0.

    Planning runs in a thread of its own on one core, almost all of it without the interpreter's lock.
    """

    def __init__(
        self,
        placement: Placement,
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
    ) -> None:
        if (placement.num_ranks, placement.num_slots) != (cluster.num_ranks, cluster.num_slots):
            raise InvalidInputError(
                f"the placement has {placement.num_slots} slots on {placement.num_ranks} ranks, the cluster "
                f"{cluster.num_slots} on {cluster.num_ranks}; pass the cluster that it is for."
            )
        if weights is not None and peers is None:
            raise InvalidInputError("weights are given and peers are not; pass peers=Peers(), with whom to move them.")
        self.placement, self.cluster, self.counters = placement, cluster, Counters()
        if name is not None:
            self.counters.name = name
        self.decisions: deque[Decision] = deque(maxlen=100)
        self._groups, self._max_transfers = num_expert_groups, max_transfers
        self._check_every = count(check_every, "check_every")
        self._window: Window = SlidingSum(self._check_every) if window is None else window
        self._policy: Policy = TokenGain() if policy is None else policy
        self._links, self._weights, self._peers = links, weights, peers
        self._rounds, self._timeout = rounds_per_step, timeout
        self._lost: tuple[int, ...] = ()
        self._bytes = bytes_per_expert
        if weights is not None and bytes_per_expert == 0:
            self._bytes = sum(tensor[0].numel() * tensor.element_size() for tensor in weights[0])
        self._migration: Any = None
        self._over: RanksLostError | None = None
        self._planning: Planning | None = None
        self._next_check = self._check_every
        self._just_moved = False
        self._clock: deque[float] = deque(maxlen=self._check_every + 1)

    def record(self, counts: Any, *, physical: bool = False) -> None:
        """Take the tokens that one step routed.

        Parameters
        ----------
        counts : array, shape (num_layers, num_logical_experts), or (num_layers, num_slots) if ``physical``
            Numpy or torch, on any device.
        physical : bool, default False
            Whether counts are of slots, by the placement in force, and not of logical experts.
        """
        array = np.asarray(as_numpy(counts, "counts"), dtype=np.float64)
        layers, experts = self.placement.num_layers, self.placement.num_logical_experts
        shape = (layers, self.placement.num_slots if physical else experts)
        if array.shape != shape:
            raise InvalidInputError(f"counts has shape {array.shape}; it must be {shape}, one row for each layer.")
        if physical:
            by_expert = np.zeros((layers, experts + 1))
            rows = np.repeat(np.arange(layers), shape[1])
            np.add.at(by_expert, (rows, self.placement.physical_to_logical.ravel()), array.ravel())
            array = by_expert[:, :experts]  # the last column is that of empty slots
        self._window.add(np.array(array))
        self.counters.steps += 1
        self._clock.append(time.perf_counter())

    def step(self) -> bool:
        """Do what is due between two forward passes; return whether ``placement`` has changed.

        Quick when nothing is due: one comparison. While a plan is made, with peers, one small sum over the ranks.

        Raises
        ------
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
            self.placement = self.placement if error.placement is None else error.placement
            raise

    def _step(self) -> bool:
        if self._migration is not None:
            return self._move()
        if self._planning is not None:
            return self._weigh() if self._all_ready() else False
        if self.counters.steps >= self._next_check:
            self._begin_planning()
        return False

    @property
    def is_migrating(self) -> bool:
        """Whether weights are on the move: ``placement`` is then between two plans."""
        return self._migration is not None

    def resume(self, peers: Any, weights: Sequence[Sequence[Any]] | None, lost_ranks: Sequence[int]) -> None:
        """Go on without some ranks, after a ``RanksLostError``, with a new group of those that are left.

        ``lost_ranks`` are all that are gone, those that were lost before among them; what they held is no longer in
        ``placement``. The next step plans.
        """
        held = self.placement.physical_to_logical.reshape(self.placement.num_layers, self.cluster.num_ranks, -1).copy()
        held[:, list(lost_ranks)] = -1
        table = held.reshape(len(held), -1)
        self.placement = Placement(table, self.cluster.num_ranks, self.placement.num_logical_experts)
        self._peers, self._weights, self._lost = peers, weights, tuple(lost_ranks)
        self._migration, self._planning, self._over, self._next_check = None, None, None, self.counters.steps

    def wait(self) -> None:
        """Wait for a plan that is being made, if one is. For tests and the end of a program."""
        if self._planning is not None:
            self._planning.thread.join()

    def _begin_planning(self) -> None:
        self._next_check = self.counters.steps + self._check_every
        load = self._window.tokens_per_step()
        if load is None:
            return
        if self._peers is not None:
            load = self._together(partial(self._peers.add_up, load))
        if not (load > 0).any():
            self._decide(False, "there is no load", None)
            return
        # Whole numbers of 1/1024 token, so that every rank plans from the same bits however sums were made.
        load = np.rint(load * 1024)
        problem = PlacementProblem(load, self.cluster, self._groups)
        self._planning = Planning(problem, self.placement, self._max_transfers, self._lost, self._bytes)

    def _all_ready(self) -> bool:
        assert self._planning is not None
        ready = not self._planning.thread.is_alive()
        return ready if self._peers is None else bool(self._together(partial(self._peers.all_of, ready)))

    def _together(self, collective: Callable[[float], Any]) -> Any:
        """Return what all ranks find together, or raise that ranks are lost; the placement in force stays."""
        alive = [rank for rank in range(self.cluster.num_ranks) if rank not in self._lost]
        names = alive if len(alive) == self._peers.size else ()
        return self._peers.together(collective, self._timeout, self.placement, names)

    def _weigh(self) -> bool:
        planning, self._planning = self._planning, None
        assert planning is not None
        self.counters.planning_seconds = planning.seconds
        if planning.bug is not None:
            raise planning.bug
        if planning.error is not None:
            self.counters.failures += 1
            self._decide(False, str(planning.error), None)
            return False
        plan, schedule = planning.plan, planning.schedule
        assert plan is not None
        assert schedule is not None
        load = planning.problem.load / 1024
        now = self.placement.rank_load(load)
        seconds = self._step_seconds()
        if self._peers is not None:
            seconds = self._together(partial(self._peers.from_first, seconds))
        outlook = Outlook(
            float(balancedness(now).mean()),
            plan.metrics.mean_balancedness,
            float(now.max(axis=1).sum()),
            float(plan.metrics.max_rank_load.sum()) / 1024,
            schedule.num_transfers,
            schedule.seconds(self._links),
            seconds,
        )
        self.counters.checks += 1
        if self._just_moved:
            self._just_moved, self.counters.balancedness_realised = False, outlook.balancedness
        if not (self.placement.replica_count > 0).all():
            migrate, reason = True, "some experts have no slot"
        else:
            migrate, reason = self._policy.weigh(outlook)
        self._decide(migrate, reason, outlook)
        if not migrate:
            return False
        self.counters.migrations += 1
        self.counters.balancedness_before = outlook.balancedness
        self.counters.balancedness_planned = outlook.planned_balancedness
        self.counters.transfers += schedule.num_transfers
        self.counters.bytes += schedule.num_bytes
        self.counters.publish()
        if self._weights is None:
            self.placement = plan.placement
            self._just_moved = True
            return True
        from equipoise.migration.execute import Migration

        self._migration = Migration(schedule, self._weights, self._peers, timeout=self._timeout)
        return False

    def _move(self) -> bool:
        done = self._migration.step(self._rounds)
        self.placement = self._migration.placement
        if done:
            self._migration = None
            self._just_moved = True
        return True

    def _decide(self, migrate: bool, reason: str, outlook: Outlook | None) -> None:
        self.counters.skipped += not migrate
        self.decisions.append(Decision(self.counters.steps, migrate, reason, outlook))
        self.counters.publish()

    def _step_seconds(self) -> float:
        """Return the median time from one record to the next: pauses between requests do not count."""
        return float(np.median(np.diff(self._clock))) if len(self._clock) > 1 else 0.0
