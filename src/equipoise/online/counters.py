"""What a balancer did, as plain numbers; and as Prometheus gauges where prometheus_client is installed."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import dataclass, field, fields
from typing import Any
from weakref import WeakValueDictionary

from equipoise.arguments import real
from equipoise.errors import InvalidInputError, shown

__all__ = ["Counters"]

_numbers = itertools.count()
_named: WeakValueDictionary[str, Counters] = WeakValueDictionary()
_gauges: dict[str, Any] = {}


@dataclass
class Counters:
    """Numbers of one balancer.

    Attributes
    ----------
    steps, checks, migrations, skipped, failures, refreshes : int
        Steps recorded, plans weighed, migrations begun, plans not followed, plans that could not be made, and shares
        changed where the placement stayed.
    balancedness_before, balancedness_planned, balancedness_realised : float
        Of the last migration: before it, as planned, and on the window of the next check. NaN when there is none.
    transfers, bytes : int
        Moved between ranks so far, over all migrations.
    planning_seconds : float
        Of the last plan.
    name : str
        Label of the gauges. While other counters of this process have it, it becomes ``name/2``, ``name/3``, ...

    Notes
    -----
    Gauges are set at every check: between two of them, ``equipoise_steps`` is that of the last one.
    """

    steps: int = 0
    checks: int = 0
    migrations: int = 0
    skipped: int = 0
    failures: int = 0
    refreshes: int = 0
    balancedness_before: float = float("nan")
    balancedness_planned: float = float("nan")
    balancedness_realised: float = float("nan")
    transfers: int = 0
    bytes: int = 0
    planning_seconds: float = 0.0
    name: str = field(default_factory=lambda: str(next(_numbers)))

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidInputError(f"name is {shown(self.name)}; it must be a text that is not empty.")
        for number in fields(self):
            if number.name != "name":
                real(getattr(self, number.name), number.name)
        asked = self.name
        for again in itertools.count(2):
            if _named.setdefault(self.name, self) is self:
                break
            self.name = f"{asked}/{again}"

    def publish(self) -> None:
        """Set the gauges ``equipoise_<number>``, labelled by balancer; without prometheus_client, do nothing."""
        if importlib.util.find_spec("prometheus_client") is None:
            return
        for number in fields(self):
            if number.name != "name":
                _gauge(number.name).labels(self.name).set(getattr(self, number.name))


def _gauge(number: str) -> Any:
    """Return the gauge of a number, the same for all balancers of this process."""
    if number not in _gauges:
        from prometheus_client import Gauge

        _gauges[number] = Gauge(f"equipoise_{number}", f"{number.replace('_', ' ')} of a balancer", ["balancer"])
    return _gauges[number]
