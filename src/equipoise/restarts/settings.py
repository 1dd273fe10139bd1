"""How widely pruned restarts search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equipoise.errors import InvalidInputError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How widely pruned restarts search.

    Parameters
    ----------
    restarts : int, default 2048
        Greedy packings per row; restart 0 is the plain greedy. At least 1.
    refined : int, default 64
        Candidates that survive pruning. At least 1; more than ``restarts`` means all.
    noise : float, default 0.20
        Noise scale of the last restart; it rises linearly from 0. Finite, not negative.
    swaps : int, default 50
        Most exchanges per survivor. 0 skips refinement.
    extremes : int, default 4
        Heavy packs, and light packs, among which an exchange is sought. At least 1.
    """

    restarts: int = 2048
    refined: int = 64
    noise: float = 0.20
    swaps: int = 50
    extremes: int = 4

    def __post_init__(self) -> None:
        for name, least in (("restarts", 1), ("refined", 1), ("swaps", 0), ("extremes", 1)):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
                raise InvalidInputError(f"{name} is {value!r}; it must be a whole number of at least {least}.")
            object.__setattr__(self, name, value.__index__())
        if self.restarts > 2**31:
            raise InvalidInputError(f"restarts is {self.restarts}; at most {2**31} have a number of their own.")
        noise: Any = self.noise
        if not hasattr(noise, "__float__") or not 0 <= float(noise) < float("inf"):
            raise InvalidInputError(f"noise is {noise!r}; it must be a finite number, not negative.")
        object.__setattr__(self, "noise", float(noise))

    def scale(self, restart: int) -> float:
        """Noise scale of one restart."""
        return self.noise * restart / max(self.restarts - 1, 1)
