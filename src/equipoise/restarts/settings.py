"""How widely pruned restarts search."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.arguments import count, finite

__all__ = ["Settings"]

MOST = 2**24  # of anything: restarts beyond it would take more memory than there is


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
            object.__setattr__(self, name, count(getattr(self, name), name, least, most=MOST))
        object.__setattr__(self, "noise", finite(self.noise, "noise"))

    def scale(self, restart: int) -> float:
        """Noise scale of one restart."""
        return self.noise * count(restart, "restart", least=0, most=MOST) / max(self.restarts - 1, 1)
