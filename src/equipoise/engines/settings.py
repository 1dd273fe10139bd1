"""What the environment says to a plug-in: one table, read once when the engine loads it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from equipoise.arguments import as_instance, as_names, flag
from equipoise.errors import InvalidInputError, shown
from equipoise.threads import num_threads

if TYPE_CHECKING:
    from equipoise.how import How
    from equipoise.replan.budget import Budget

__all__ = ["VARIABLES", "Settings"]

LEVEL = 0.003
"""A rank that carries at most this part more than the mean is level: to gain the rest would move far more than it."""

GAIN = 0.004
"""The part by which a layer's busiest rank must get lighter: about what a drift of one percent takes."""

OTHERS = ("EQUIPOISE_VLLM_ASCEND",)
"""Prefixes of plug-ins that begin like another's."""


@dataclass(frozen=True)
class Settings:
    """How a plug-in plans.

    Attributes
    ----------
    enabled : bool, default True
        Whether the plug-in takes the planner's place at all.
    strategy : str or None, default None
        A name in ``equipoise.strategies``; None is the default of ``equipoise.solve``.
    parameters : dict
        ``max_gap`` and ``effort`` of the strategy; empty leaves the strategy's own defaults.
    threads : int or None, default None
        Most threads for one plan; None uses all processors that the process may run on.
    plans : tuple of str
        Files of plans to hold instead of planning.
    max_transfers, max_transfers_total, max_layers : int or None, default None
        Of one rearrangement, at most: transfers in each layer, transfers in all layers together, layers that change.
    min_gain : float, default 0.004
        The part of its load by which a layer's busiest rank must get lighter, or the layer stays as it is. 0 plans
        anew each time, as if transfers cost nothing.
    hierarchy : str, default "auto"
        Whether expert groups stay whole on a node: as the engine asks, never ("global") or always ("hierarchical").
    record : str or None, default None
        A folder in which the loads are kept.
    record_mb : int, default 256
        Megabytes of it, at most.
    metrics : bool, default False
        Whether Prometheus gauges are set.
    windows : int or None, default None
        Windows of the past from which the next is forecast, at most: 1 plans for the sum of what was seen, and None
        leaves it to the plug-in.
    shares : bool, default False
        Whether replicas get the best shares of their expert's tokens, and not even ones: at every call of the engine
        for the load that it passes, and a layer keeps its placement where new shares are enough.

    Examples
    --------
    >>> Settings.from_environment("EQUIPOISE_VLLM", {"EQUIPOISE_VLLM_MAX_GAP": "0.01"}).parameters
    {'max_gap': 0.01}
    """

    enabled: bool = True
    strategy: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None
    plans: tuple[str, ...] = ()
    max_transfers: int | None = None
    max_transfers_total: int | None = None
    max_layers: int | None = None
    min_gain: float = GAIN
    hierarchy: str = "auto"
    record: str | None = None
    record_mb: int = 256
    metrics: bool = False
    windows: int | None = None
    shares: bool = False

    def __post_init__(self) -> None:
        flag(self.enabled, "enabled")
        flag(self.shares, "shares")
        if self.strategy is not None:
            as_instance(self.strategy, str, "strategy", "the name of a strategy, or None")
        as_names(
            tuple(as_instance(self.parameters, dict, "parameters", "a dict of the strategy's parameters")), "parameters"
        )
        num_threads(self.threads)
        object.__setattr__(self, "plans", as_names(self.plans, "plans"))

    @classmethod
    def from_environment(cls, prefix: str, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the variables ``prefix`` and ``prefix_...``; an empty one counts as not set.

        Raises
        ------
        InvalidInputError
            If a variable does not say what its row in ``VARIABLES`` expects, or begins with ``prefix`` and has no row.
        """
        environment = os.environ if environment is None else environment
        as_instance(prefix, str, "prefix", "how the names of the variables begin")
        if not isinstance(environment, Mapping):
            raise InvalidInputError(f"environment is {shown(environment)}; pass a mapping of names to texts, or None.")
        given = {
            name: as_instance(text, str, name, "a text").strip()
            for name, text in environment.items()
            if isinstance(name, str) and name.startswith(prefix)
        }
        given = {name: text for name, text in given.items() if text}
        found: dict[str, Any] = {}
        for suffix, (name, read, rule) in VARIABLES.items():
            text = given.pop(prefix + suffix, "")
            if not text:
                continue
            try:
                found[name] = read(text)
            except ValueError:
                raise InvalidInputError(f"{prefix}{suffix} is {shown(text)}; {rule}.") from None
        _refuse_unknown(prefix, given)
        of_strategy = [name for name in ("max_gap", "effort") if name in found]
        return cls(parameters={name: found.pop(name) for name in of_strategy}, **found)

    def check(self) -> None:
        """Refuse a strategy or parameter that does not exist when the engine starts, not at its first plan.

        Raises
        ------
        UnknownNameError
            If there is no such strategy, or it has no such parameter.
        """
        if self.strategy is not None or self.parameters:  # the defaults need no check, and choosing imports numba
            self.how()

    def how(self) -> How:
        """Return how to plan.

        Raises
        ------
        UnknownNameError
            As ``check`` does.
        """
        from equipoise.how import How
        from equipoise.strategies import DEFAULT

        return How.of(self.strategy or DEFAULT, threads=self.threads, **self.parameters)

    def budget(self, separate: bool = False) -> Budget:
        """Return how far the next placement may be from the one in force; ``separate`` as in ``Budget``.

        Ranks within 0.3 % of the mean, and within ``min_gain`` where that is less, count as level; within three times
        that where more would move much.
        """
        from equipoise.replan.budget import Budget

        return Budget(
            self.max_transfers,
            self.max_transfers_total,
            self.min_gain,
            self.max_layers,
            tolerance=min(self.min_gain, LEVEL) or None,
            complete=True,
            separate=separate,
        )


def _refuse_unknown(prefix: str, given: Mapping[str, str]) -> None:
    """Refuse what begins with ``prefix`` and is no variable: a misspelt one would be passed over in silence."""
    known = [prefix + suffix for suffix in VARIABLES]
    others = tuple(other for other in OTHERS if other.startswith(prefix) and other != prefix)
    for name in sorted(given):
        if not name.startswith(others):
            nearest = difflib.get_close_matches(name.upper(), known, 1, 0.0)[0]
            raise InvalidInputError(f"{name} is no variable of this plug-in; {nearest} is. Correct or unset it.")


def _switch(text: str) -> bool:
    return text == "1" if text in ("0", "1") else _refuse()


def _fraction(text: str) -> float:
    value = float(text)
    return value if 0 <= value < float("inf") else _refuse()


def _positive(text: str) -> int:
    value = int(text)
    return value if value >= 1 else _refuse()


def _whole(text: str) -> int:
    value = int(text)
    return value if value >= 0 else _refuse()


def _hierarchy(text: str) -> str:
    return text if text in ("auto", "global", "hierarchical") else _refuse()


def _refuse() -> Any:
    raise ValueError


_WHOLE = "it must be a whole number of at least 0"
_POSITIVE = "it must be a whole number of at least 1"

# suffix: (attribute or parameter, how to read it, the rule that an error states)
VARIABLES: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "": ("enabled", _switch, "set it to 0 to switch equipoise off, or leave it out"),
    "_STRATEGY": ("strategy", str, "name a strategy"),
    "_MAX_GAP": ("max_gap", _fraction, "it must be a number of at least 0, such as 0.01 for one percent"),
    "_EFFORT": ("effort", str, "name an effort of the strategy"),
    "_THREADS": ("threads", _positive, _POSITIVE),
    "_PLAN": (
        "plans",
        lambda text: tuple(text.split(os.pathsep)),
        f"name a plan file, or several with {os.pathsep!r} between",
    ),
    "_MAX_TRANSFERS": ("max_transfers", _whole, _WHOLE),
    "_MAX_TRANSFERS_TOTAL": ("max_transfers_total", _whole, _WHOLE),
    "_MAX_LAYERS": ("max_layers", _whole, _WHOLE),
    "_MIN_GAIN": ("min_gain", _fraction, "it must be a number of at least 0, such as 0.01 for one percent"),
    "_HIERARCHY": ("hierarchy", _hierarchy, "it must be auto, global or hierarchical"),
    "_RECORD": ("record", str, "name a folder"),
    "_RECORD_MB": ("record_mb", _positive, _POSITIVE),
    "_WINDOWS": ("windows", _positive, _POSITIVE),
    "_METRICS": ("metrics", _switch, "set it to 1 to set Prometheus gauges, or leave it out"),
    "_SHARES": ("shares", _switch, "set it to 1 to give replicas uneven shares of tokens, or leave it out"),
}
