"""Pruned restarts: pack weighted items into packs of equal size. The contract of all implementations.

    pack(weight, num_packs, settings, key) -> pack_index, rank_in_pack

``weight`` int64 [rows, items], not negative, each row summing to at most 2**52; ``key`` one 32-bit
word per row; ``settings`` a ``Settings``. Returns two int32 arrays [rows, items]: the pack of each
item and its place in the pack, each place taken once.

Every implementation makes the same candidates and returns the same plan:

starts
    Restart ``r`` orders the items by ``weight * (1 + s_r * u)`` in float64, descending, ties to the
    lowest item; ``s_r = noise * r / (restarts - 1)`` and ``u`` is ``counter.uniforms``. In that order
    each item goes to the lightest pack with room, ties to the lowest pack.
prune
    Keep the ``refined`` restarts with the smallest imbalance (heaviest - lightest pack), ties to
    the lowest restart. Restarts that coincide count once: those that put the same weights
    together, whatever the packs are called.
refine
    At most ``swaps`` times: among the ``extremes`` heaviest and lightest packs (ties to the lowest
    pack), for each pair of a heavy pack A and a light pack B that differ, the items u in A and v in B
    whose ``d = w_u - w_v`` is nearest to half of ``D = W_A - W_B``, with 0 < d < D (ties to the lowest
    u, then v). Of all pairs, exchange the one with the largest ``d * (D - d)`` in float64, ties to
    the first pair, heaviest A first, then lightest B. Stop when there is none.
select
    The refined candidate with the smallest imbalance, ties to the one that was pruned first.
"""

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
