"""Who moves what, and what the ranks of a group find together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InvalidInputError
from equipoise.migration.peers import check_peers
from equipoise.migration.weights import check_restore, check_tensors
from equipoise.placement import Placement

__all__ = ["Movers"]


@dataclass(frozen=True)
class Movers:
    """Who moves what: this rank's tensors, the other ranks, and whence to load what no rank holds.

    ``lost`` are the ranks that are gone, which ``peers`` leaves out.
    """

    placement: Placement
    peers: Any
    weights: Sequence[Sequence[Any]] | None
    restore: Any
    lost: tuple[int, ...] = ()
    timeout: float = 30.0

    def __post_init__(self) -> None:
        check_restore(self.restore)
        if self.peers is not None:
            check_peers(self.peers)
        if self.weights is None:
            return
        if self.peers is None:
            raise InvalidInputError("weights are given and peers are not; pass peers=Peers(), with whom to move them.")
        check_tensors(self.weights, self.placement.num_layers, self.placement.slots_per_rank)
        left = self.placement.num_ranks - len(self.lost)
        if self.peers.size != left:
            raise InvalidInputError(
                f"weights lie on {left} ranks and the process group has {self.peers.size}; pass a group of these ranks."
            )

    @property
    def bytes_per_expert(self) -> int:
        """Of one layer; 0 without weights."""
        return sum(own[0].numel() * own.element_size() for own in self.weights[0]) if self.weights else 0

    @property
    def names(self) -> list[int]:
        """What the placement calls the ranks of the group."""
        alive = [rank for rank in range(self.placement.num_ranks) if rank not in self.lost]
        return alive if len(alive) == self.peers.size else list(range(self.peers.size))

    def together(self, collective: Callable[[float], Any], in_force: Placement) -> Any:
        """Return what all ranks find together, or raise that ranks are lost; the placement ``in_force`` stays."""
        return self.peers.together(collective, self.timeout, in_force, self.names)

    def all_of(self, ready: bool, in_force: Placement) -> bool:
        """Whether every rank is ready."""
        return ready if self.peers is None else bool(self.together(partial(self.peers.all_of, ready), in_force))

    def from_first(self, value: float, in_force: Placement) -> float:
        """Return the number of the first rank."""
        return value if self.peers is None else self.together(partial(self.peers.from_first, value), in_force)

    def add_up(self, find: Callable[[], NDArray[np.float64]], in_force: Placement) -> NDArray[np.float64]:
        """Return the sum of what all ranks find, once all of them have found it: sums wait for all ranks.

        Raises
        ------
        InvalidInputError
            On every rank, if some did not find it; the message says why.
        """
        if self.peers is None:
            return find()
        found, wrong, failure = None, None, None
        try:
            found = find()
        except Exception as error:  # the others wait for an answer, whatever it is
            wrong, failure = str(error) if isinstance(error, InvalidInputError) else repr(error), error
        told = self.together(lambda seconds: self.peers.gather(wrong, seconds), in_force)
        trouble = [f"rank {name}: {text}" for name, text in zip(self.names, told, strict=True) if text is not None]
        if trouble:
            raise InvalidInputError(f"{' '.join(trouble)} Nothing was added up.") from failure
        total: NDArray[np.float64] = self.together(lambda seconds: self.peers.add_up(found, seconds), in_force)
        return total
