"""What the environment says to a plug-in: one table, read once when the engine loads it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from equipoise.arguments import as_instance, as_names, flag
from equipoise.errors import InvalidInputError, shown
from equipoise.threads import num_threads

if TYPE_CHECKING:
    from equipoise.how import How

__all__ = ["VARIABLES", "Settings"]


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

    def __post_init__(self) -> None:
        flag(self.enabled, "enabled")
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
            If a variable does not say what its row in ``VARIABLES`` expects.
        """
        environment = os.environ if environment is None else environment
        as_instance(prefix, str, "prefix", "how the names of the variables begin")
        if not isinstance(environment, Mapping):
            raise InvalidInputError(f"environment is {shown(environment)}; pass a mapping of names to texts, or None.")
        found: dict[str, Any] = {}
        for suffix, (name, read, rule) in VARIABLES.items():
            text = as_instance(environment.get(prefix + suffix, ""), str, prefix + suffix, "a text").strip()
            if not text:
                continue
            try:
                found[name] = read(text)
            except ValueError:
                raise InvalidInputError(f"{prefix}{suffix} is {shown(text)}; {rule}.") from None
        given = [name for name in ("max_gap", "effort") if name in found]
        return cls(parameters={name: found.pop(name) for name in given}, **found)

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


def _switch(text: str) -> bool:
    return text == "1" if text in ("0", "1") else _refuse()


def _gap(text: str) -> float:
    value = float(text)
    return value if 0 <= value < float("inf") else _refuse()


def _threads(text: str) -> int:
    value = int(text)
    return value if value >= 1 else _refuse()


def _refuse() -> Any:
    raise ValueError


# suffix: (attribute or parameter, how to read it, the rule that an error states)
VARIABLES: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "": ("enabled", _switch, "set it to 0 to switch equipoise off, or leave it out"),
    "_STRATEGY": ("strategy", str, "name a strategy"),
    "_MAX_GAP": ("max_gap", _gap, "it must be a number of at least 0, such as 0.01 for one percent"),
    "_EFFORT": ("effort", str, "name an effort of the strategy"),
    "_THREADS": ("threads", _threads, "it must be a whole number of at least 1"),
    "_PLAN": (
        "plans",
        lambda text: tuple(text.split(os.pathsep)),
        f"name a plan file, or several with {os.pathsep!r} between",
    ),
}
