"""How far the next placement may be from the one in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from equipoise.arguments import count, finite, flag

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """How far the next placement may be from the one in force; a plan's provenance records it.

    Parameters
    ----------
    max_transfers : int or None, default None
        Transfers in each layer, at most; None sets no limit.
    max_transfers_total : int or None, default None
        Transfers in all layers together, at most; None sets no limit.
    min_gain : float or None, default None
        A layer stays as it is unless its busiest rank gets lighter, and by this part of its load at least. None: it
        takes what was found, lighter or not.
    max_layers : int or None, default None
        Layers that change, at most: those whose busiest rank loses most tokens, ties to the lowest. None sets no limit.
    tolerance : float or None, default None
        A rank that carries at most this part more than the mean counts as level, and nothing moves for less; where many
        slots would change for that, three times the part is enough. With it and no limit on transfers, nothing is
        planned anew but layers that need it: see ``equipoise.replan.settle``.
    complete : bool, default False
        Whether every slot gets an expert and every expert a slot, by transfers beyond the limits if need be.
    separate : bool, default False
        Whether a layer stays as it is rather than have an expert twice on a rank, which more replicas than ranks make
        inevitable.
    lost_ranks : tuple of int, default ()
        Ranks whose slots stay empty.
    anew : dict or None, default None
        Recorded by plans: the strategy, with its parameters, of the plan made anew that layers could take.

    Raises
    ------
    InvalidInputError
        If a limit is not a whole number of at least 0, or the gain no finite number of at least 0.

    Notes
    -----
    By ``min_gain``, ``max_layers`` and ``separate`` a layer stays only where it can: on the same ranks and slots, none
    of them lost, with every slot filled, every expert held, and groups whole on their nodes.
    """

    max_transfers: int | None = None
    max_transfers_total: int | None = None
    min_gain: float | None = None
    max_layers: int | None = None
    tolerance: float | None = None
    complete: bool = False
    separate: bool = False
    lost_ranks: tuple[int, ...] = ()
    anew: dict[str, Any] | None = None

    name: ClassVar[str] = "move-little"

    def __post_init__(self) -> None:
        for name in ("max_transfers", "max_transfers_total", "max_layers"):
            value: Any = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, count(value, name, least=0, otherwise=", or None"))
        flag(self.separate, "separate")
        for name in ("min_gain", "tolerance"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, finite(getattr(self, name), name))

    @property
    def limits_transfers(self) -> bool:
        """Whether transfers are limited at all."""
        return self.max_transfers is not None or self.max_transfers_total is not None

    @property
    def keeps_layers(self) -> bool:
        """Whether some layers may have to stay as they are."""
        return self.min_gain is not None or self.max_layers is not None or self.separate
