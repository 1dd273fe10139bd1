"""When moving experts pays.

The gain is counted in tokens. The ranks of a layer wait for the busiest one, so a step costs as much as the busiest
ranks of all layers carry together: with a placement whose busiest ranks carry ``M`` tokens a step, summed over the
layers, the expert layers take ``M * seconds_per_token``. A placement that lowers ``M`` to ``M'`` saves

    saved = (1 - M' / M) * expert_share * step_seconds        seconds a step,

where ``step_seconds`` is what a step takes now and ``expert_share`` the part of it that the expert layers take:
layers are weighted by their tokens, not averaged as ratios. The migration delays the engine by

    delay = (1 - overlap) * migration_seconds,

and pays for itself when the load stays as it is for ``horizon`` steps with ``saved * horizon > (1 + margin) * delay``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

from equipoise.arguments import as_instance, count, finite, real
from equipoise.errors import InvalidInputError, shown

__all__ = ["FixedInterval", "Outlook", "Policy", "Threshold", "TokenGain"]


@dataclass(frozen=True)
class Outlook:
    """What is known when a plan is weighed.

    Attributes
    ----------
    balancedness, planned_balancedness : float
        Mean over the layers, of the placement in force and of the planned one: as expected of the next window where
        windows are forecast, else on the load of the last.
    tokens, planned_tokens : float
        Tokens a step of the busiest ranks, summed over the layers, on the same.
    transfers : int
    migration_seconds : float
        Estimated.
    step_seconds : float
        What a step takes now.
    """

    balancedness: float
    planned_balancedness: float
    tokens: float
    planned_tokens: float
    transfers: int
    migration_seconds: float
    step_seconds: float

    def __post_init__(self) -> None:
        for field in fields(self):
            real(getattr(self, field.name), field.name)


def _check_outlook(outlook: Any) -> None:
    as_instance(outlook, Outlook, "outlook", "an Outlook(...)")


class Policy(Protocol):
    """Says whether to migrate, and why."""

    def weigh(self, outlook: Outlook) -> tuple[bool, str]:
        """Return whether to migrate, and the reason in a sentence."""


@dataclass(frozen=True)
class TokenGain:
    """Migrate when the time saved exceeds the delay; see the formulas at the top of this file.

    Parameters
    ----------
    horizon : int, default 1000
        Steps for which the load is expected to stay as it is.
    expert_share : float, default 0.5
        Part of a step that the expert layers take, in (0, 1].
    overlap : float, default 0.0
        Part of the migration that runs beside the engine without delaying it, in [0, 1].
    margin : float, default 0.1
        How much more than the delay must be saved. Finite, not negative.
    """

    horizon: int = 1000
    expert_share: float = 0.5
    overlap: float = 0.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "horizon", count(self.horizon, "horizon", most=2**53))
        for name, rule, allowed in (
            ("expert_share", "a number above 0, up to 1", lambda share: 0 < share <= 1),
            ("overlap", "a number from 0 to 1", lambda part: part <= 1),
            ("margin", "a finite number, not negative", lambda _: True),
        ):
            value = getattr(self, name)
            number = finite(value, name, rule)
            if not allowed(number):
                raise InvalidInputError(f"{name} is {shown(value)}; it must be {rule}.")
            object.__setattr__(self, name, number)

    def weigh(self, outlook: Outlook) -> tuple[bool, str]:
        """Compare what is saved over the horizon with the delay."""
        _check_outlook(outlook)
        if outlook.tokens <= 0:
            return False, "there is no load"
        part = 1 - outlook.planned_tokens / outlook.tokens
        saved = max(part, 0.0) * self.expert_share * outlook.step_seconds * self.horizon
        delay = (1 - self.overlap) * outlook.migration_seconds
        pays = saved > (1 + self.margin) * delay
        return pays, (
            f"saves {saved:.3g} s over {self.horizon} steps and delays them by {delay:.3g} s"
            + ("" if pays else f"; it must save {1 + self.margin:g} times the delay")
        )


@dataclass(frozen=True)
class FixedInterval:
    """Migrate at every check at which the plan is better at all."""

    def weigh(self, outlook: Outlook) -> tuple[bool, str]:
        """Compare the busiest ranks."""
        _check_outlook(outlook)
        better = outlook.planned_tokens < outlook.tokens
        return better, "the interval is over" if better else "no plan is better than what is in force"


@dataclass(frozen=True)
class Threshold:
    """Migrate when balancedness has fallen below ``balancedness`` and the plan is better.

    Parameters
    ----------
    balancedness : float, default 0.9
        In (0, 1].
    """

    balancedness: float = 0.9

    def __post_init__(self) -> None:
        rule = "a number above 0, up to 1"
        number = finite(self.balancedness, "balancedness", rule)
        if not 0 < number <= 1:
            raise InvalidInputError(f"balancedness is {shown(self.balancedness)}; it must be {rule}.")
        object.__setattr__(self, "balancedness", number)

    def weigh(self, outlook: Outlook) -> tuple[bool, str]:
        """Compare the balancedness in force with the threshold."""
        _check_outlook(outlook)
        now = f"balancedness is {outlook.balancedness:.4f}, the threshold {self.balancedness:g}"
        if outlook.balancedness >= self.balancedness:
            return False, now
        better = outlook.planned_tokens < outlook.tokens
        return better, now if better else f"{now}, but no plan is better than what is in force"
