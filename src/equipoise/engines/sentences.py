"""What plug-ins say in the log: how level ranks are, what moves for it, and what holds it up; a line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from equipoise.certificate import Certificate
from equipoise.metrics import balancedness
from equipoise.placement import Placement

if TYPE_CHECKING:
    from equipoise.engines.planning import Next

__all__ = ["Balance", "Moved", "balance_seen", "balances", "held_up", "realised", "rearrangement"]

FAR = 0.98
"""A balancedness below which a line says what holds the busiest ranks up."""


@dataclass(frozen=True)
class Balance:
    """Mean / busiest rank load of the layers: averaged over them, and of the worst."""

    mean: float
    worst: float

    @classmethod
    def of(cls, rank_load: NDArray[np.float64]) -> Balance:
        """Return that of rank loads, [layers, ranks]."""
        each = balancedness(rank_load)
        return cls(float(each.mean()), float(each.min()))

    def __str__(self) -> str:
        return f"mean {self.mean:.4f}, worst layer {self.worst:.4f}"


@dataclass(frozen=True)
class Moved:
    """Layers that change, of how many, and the transfers that takes; none where nothing is known to be in force."""

    changed: int
    layers: int
    transfers: int

    @classmethod
    def of(cls, found: Next) -> Moved:
        """Return that of a plan."""
        from equipoise.replan.remainder import count_transfers

        held, placement = found.held, found.placement
        layers = placement.num_layers
        if held is None:
            return cls(0, layers, 0)
        changed = layers
        if held.num_slots == placement.num_slots:
            changed = int((held.physical_to_logical != placement.physical_to_logical).any(axis=1).sum())
        return cls(changed, layers, int(count_transfers(held, placement).sum()) if changed else 0)

    def __str__(self) -> str:
        return f"{self.transfers:,} transfers in {self.changed} of {self.layers} layers"


def balances(found: Next) -> tuple[Balance | None, Balance]:
    """Return how level the ranks are by the placement in force, if one is, and by the next, on the load to come."""
    load = found.problem.load
    before = None
    if found.held is not None:
        before = Balance.of(_rank_load(found.held, load) if found.was is None else found.was.rank_load(load))
    return before, Balance.of(found.rank_load())


def balance_seen(found: Next) -> Balance:
    """Return how level the ranks were by the placement in force, and its shares, on the load that was seen."""
    assert found.held is not None
    return Balance.of(_rank_load(found.held, found.seen) if found.was is None else found.was.rank_load(found.seen))


def rearrangement(
    found: Next, moved: Moved, before: Balance | None, after: Balance, seconds: float, prefix: str
) -> str:
    """Return the line on a later plan."""
    took = f"planned in {seconds * 1e3:.1f} ms"
    if before is None:
        return f"equipoise planned anew, as nothing is known to be in force: balancedness {after}; {took}."
    mean = found.problem.load.sum(axis=1) / found.placement.num_ranks
    why = held_up(found.certificate, mean, prefix) if after.mean < FAR else ""
    if not moved.changed:
        return f"equipoise leaves all {moved.layers} layers as they are: balancedness {before}{why}; {took}."
    return f"equipoise rearranges: {moved}; balancedness {before} -> {after}{why}; {took}."


def realised(now: Balance, promised: Balance) -> str:
    """Return the line on what a plan was worth over the window after it."""
    return f"equipoise's last plan, over the window since: balancedness {now}; planned {promised}."


def held_up(certificate: Certificate, mean: NDArray[np.float64], prefix: str | None) -> str:
    """Return what holds the busiest ranks up, in the layers where that is proved to be far above the mean."""
    from equipoise.bounds import BOUNDS, GROUPS, LIFTED_BY, MEAN

    far = np.flatnonzero(mean < FAR * certificate.lower_bound)
    names = [BOUNDS[certificate.bound[layer]].held_up_by for layer in far]
    text = ""
    for name in LIFTED_BY:
        if name != MEAN and name in names:
            text += f"; {names.count(name)} layers are held up by {name}: {LIFTED_BY[name]}"
            if name == GROUPS and prefix is not None:
                text += f" ({prefix}_HIERARCHY=global)"
    return text


def _rank_load(placement: Placement, load: NDArray[np.float64]) -> NDArray[np.float64]:
    from equipoise.kernels.recount.numba import recount

    return recount(placement.physical_to_logical, load, placement.num_ranks, 1, 1)[0]
