"""How a plan was found: strategy, parameters, seed, and what it records of limits, forecasts and connected ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count, finite
from equipoise.dispatch.connected import describe_connected
from equipoise.errors import InvalidInputError, listed, shown
from equipoise.placement import Placement

__all__ = ["HELD_BACK_BY", "Provenance"]

LONGEST_NAME = 200  # characters


def _check_limit(value: Any, name: str) -> None:
    if count(value, name, least=0, otherwise=", or None").bit_length() > 256:
        raise InvalidInputError(f"{name} is {shown(value)}, which limits nothing; leave it out.")


HELD_BACK_BY: dict[str, tuple[str, Callable[[Any, str], object]]] = {
    "max_transfers": ("by the limit of {:,} transfers in a layer", _check_limit),
    "max_transfers_total": ("by the limit of {:,} transfers in all layers together", _check_limit),
    "min_gain": ("by layers that stay where a plan gains less than {:.2%}", finite),
    "max_layers": ("by the limit of {:,} layers that change", _check_limit),
    "stop_after": ("by a search that was ended before it was done", lambda value, name: None),
}
"""Parameters that keep a plan from being as good as it could be, what to say of them, and what must hold to say it."""


def _check_connected(value: Any) -> None:
    """Insist on what ``describe_connected`` returns."""
    known = ("drift", "even", "best")
    if not isinstance(value, dict) or sorted(value) != sorted(known):
        raise InvalidInputError(f"parameter connected is {shown(value)}; it must have {listed(known)}.")
    for name in known:
        finite(value[name], f"parameter connected, {name}")


def _check_forecast(said: Any) -> None:
    """Insist on what a plan for a forecast records of it; see ``equipoise.robust.back_test``."""
    as_instance(said, dict, "parameter forecast", "what was forecast, as a plan records it")
    for name in ("num_windows", "num_errors", "tested_windows", "tested_layers"):
        count(said.get(name, 0), f"{name} of the forecast", least=0, most=2**63 - 1)
    finite(said.get("expected_balancedness", 0.0), "expected_balancedness of the forecast")


@dataclass(frozen=True)
class Provenance:
    """How a plan was found, so that it can be found again.

    Attributes
    ----------
    strategy : str
    parameters : dict
        Every parameter of the strategy, defaults included.
    seed : int
    implementation : str
        The backend that ran; it does not change the plan.
    stages : dict of str to int
        How often each stage of the strategy ran or decided, summed over the layers.
    problem_digest : str
        SHA-256 of the load, the cluster and the groups.
    version : str
        Of equipoise.
    """

    strategy: str
    parameters: dict[str, Any]
    seed: int
    implementation: str
    stages: dict[str, int]
    problem_digest: str
    version: str

    def __post_init__(self) -> None:
        for name in ("strategy", "implementation", "problem_digest", "version"):
            value = as_instance(getattr(self, name), str, name, "a text")
            if len(value) > LONGEST_NAME or not value.isprintable():
                raise InvalidInputError(f"{name} is {shown(value)}; it must be a short text in one line.")
        object.__setattr__(self, "seed", count(self.seed, "seed", least=0, most=2**64 - 1))
        for name in ("parameters", "stages"):
            as_instance(getattr(self, name), dict, name, "a dict")
        for name, (_, check) in HELD_BACK_BY.items():
            if self.parameters.get(name) is not None:
                check(self.parameters[name], f"parameter {name}")
        if self.parameters.get("connected"):
            _check_connected(self.parameters["connected"])
        if self.parameters.get("forecast") is not None:
            _check_forecast(self.parameters["forecast"])
        for stage, number in self.stages.items():
            if not isinstance(stage, str) or len(stage) > LONGEST_NAME or not stage.isprintable():
                raise InvalidInputError(f"stage {shown(stage)} has no name that fits into a line.")
            count(number, f"stage {shown(stage)}", least=0, most=2**63 - 1)

    def connected(self, placement: Placement, load: NDArray[np.float64]) -> Provenance:
        """Return the same with what connecting the ranks of ``placement`` gives when ``load`` drifts."""
        parameters = {**self.parameters, "connected": describe_connected(placement, load)}
        return dataclasses.replace(self, parameters=parameters)

    def with_forecast(self, said: dict[str, Any]) -> Provenance:
        """Return the same with what the plan's forecast was made of, as parameter ``forecast``."""
        return dataclasses.replace(self, parameters={**self.parameters, "forecast": said})

    @classmethod
    def of(cls, strategy: Any, seed: int, implementation: str, stages: dict[str, int], digest: str) -> Provenance:
        """Describe a run of ``strategy``, a row of ``equipoise.strategies``."""
        from equipoise import __version__

        if not dataclasses.is_dataclass(strategy) or isinstance(strategy, type):
            raise InvalidInputError(f"strategy is {shown(strategy)}; pass a row of equipoise.strategies.")
        return cls(
            getattr(strategy, "name", ""),
            dataclasses.asdict(strategy),
            seed,
            implementation,
            stages,
            digest,
            __version__,
        )
