"""What a plug-in does with each call of its engine: plan, keep the load, and say in the log what came of it."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from equipoise.arrays import as_load
from equipoise.engines import sentences
from equipoise.engines.leader import leads
from equipoise.engines.planning import Next, SavedPlans, describe, plan_next
from equipoise.engines.record import Recorder
from equipoise.engines.sentences import Balance, Moved

if TYPE_CHECKING:
    from equipoise.dispatch import Shares
    from equipoise.engines.settings import Settings
    from equipoise.online.counters import Counters
    from equipoise.placement import Placement

__all__ = ["Planner"]

Shape = tuple[int, int, int, int]  # layers, experts, slots, ranks
Key = tuple[tuple[int, ...], bytes]  # a map: its shape and all of it
PENDING = 8  # plans whose next window is waited for, at most


class Planner:
    """Plans for one plug-in, which may plan for several models.

    Parameters
    ----------
    settings : Settings
    prefix : str
        Of the plug-in's variables.
    log : logging.Logger
    is_first : callable, default ``leads``
        Whether this process is the one of its group that keeps loads, and says at INFO what the others say at DEBUG.

    Raises
    ------
    UnknownNameError
        If there is no such strategy, or it has no such parameter.
    FileFormatError
        If a saved plan cannot be read.
    InvalidInputError
        If the folder for loads cannot be written to.
    """

    def __init__(
        self, settings: Settings, prefix: str, log: logging.Logger, is_first: Callable[[], bool] = leads
    ) -> None:
        settings.check()
        self.settings, self._prefix, self._log, self._is_first = settings, prefix, log, is_first
        self._saved = SavedPlans.read(settings.plans)
        self._recorder = None if settings.record is None else Recorder(settings.record, settings.record_mb, log)
        self._seen: set[Shape] = set()  # whose first plan is in the log
        self._pending: OrderedDict[Key, Balance] = OrderedDict()  # what was promised, by the map that was returned
        self._shares: dict[Key, Shares] = {}  # of the last placements
        self._counters: dict[Shape, Counters] = {}

    def place_and_share(
        self,
        load: Any,
        num_slots: int,
        num_groups: int | None,
        num_nodes: int,
        num_ranks: int,
        current: Any = None,
        *,
        separate: bool = False,
        seen: Any = None,
    ) -> tuple[Placement, Shares | None]:
        """Return the placement to hold next and its shares, None for even ones, as where nobody asked for others.

        Arguments and errors are those of ``plan_next``. ``seen`` is the load since the last plan, which is kept, and on
        which that is judged; None: the sum of ``load``.
        """
        shape = (*load.shape[-2:], num_slots, num_ranks)
        if self._saved.plans:
            plan = self._saved.find(*shape)
            if shape not in self._seen:
                self._seen.add(shape)
                self._say("equipoise's first plan: %s.", describe(plan))
            return plan.placement, plan.shares if self.settings.shares else None
        start = time.perf_counter()
        found = plan_next(load, num_slots, num_groups, num_nodes, num_ranks, self.settings, current, separate=separate)
        if found.held is not None and self.settings.shares:
            found = dataclasses.replace(found, was=self._shares.get(_key(found.held)))
        if found.shares is not None:
            self._shares = {_key(found.placement): found.shares, **self._shares}
            self._shares = dict(list(self._shares.items())[:PENDING])
        seconds = time.perf_counter() - start
        if seen is not None:
            found = dataclasses.replace(found, seen=as_load(seen))
        # The profiling run has no load, and a plan for it says nothing.
        if found.seen.any():
            self._report(found, seconds, shape)
            if self._recorder is not None and self._is_first():
                asked = (num_slots, num_groups or 1, num_nodes, num_ranks)
                self._recorder.keep(found.seen, None if found.held is None else found.held, asked)
        return found.placement, found.shares

    def _report(self, found: Next, seconds: float, shape: Shape) -> None:
        before, after = sentences.balances(found)
        promised = None if found.held is None else self._pending.pop(_key(found.held), None)
        if promised is not None and before is not None:
            self._say("%s", sentences.realised(sentences.balance_seen(found), promised))
        moved = Moved.of(found)
        if found.held is None or moved.changed:
            self._pending[_key(found.placement)] = after
            if len(self._pending) > PENDING:
                self._pending.popitem(last=False)
        if shape not in self._seen:
            self._seen.add(shape)
            was = "" if before is None else f"; before it {before}; {moved}"
            text = f"{describe(found, self._prefix)}{was}; planned in {seconds * 1e3:.1f} ms"
            self._say("equipoise's first plan: %s.", text)
        else:
            self._say("%s", sentences.rearrangement(found, moved, before, after, seconds, self._prefix))
        if self.settings.metrics:
            realised = None if promised is None or before is None else sentences.balance_seen(found)
            self._count(shape, before, after, realised, moved, seconds)

    def _count(
        self,
        shape: Shape,
        before: Balance | None,
        after: Balance,
        realised: Balance | None,
        moved: Moved,
        seconds: float,
    ) -> None:
        from equipoise.online.counters import Counters

        if shape not in self._counters:
            name = f"{self._prefix.lower()}_{shape[0]}x{shape[1]}"
            self._counters[shape] = Counters(name=name)
        counters = self._counters[shape]
        counters.steps += 1
        counters.checks += 1
        counters.planning_seconds = seconds
        if realised is not None:
            counters.balancedness_realised = realised.mean
        if moved.changed:
            counters.migrations += 1
            counters.transfers += moved.transfers
            counters.balancedness_before = float("nan") if before is None else before.mean
            counters.balancedness_planned = after.mean
        else:
            counters.skipped += 1
        counters.publish()

    def _say(self, text: str, *parts: object) -> None:
        self._log.log(logging.INFO if self._is_first() else logging.DEBUG, text, *parts)


def _key(placement: Placement) -> Key:
    table = placement.physical_to_logical
    return table.shape, table.tobytes()
