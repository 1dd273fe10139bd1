"""Levelling the ranks within a budget of transfers, and what else the budget admits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InfeasibleError
from equipoise.how import How
from equipoise.kernels.native import native
from equipoise.placement import Placement
from equipoise.problem import PlacementProblem, count
from equipoise.replan.anew import Anew, plan_anew
from equipoise.replan.levelling.numba import MAX, descend
from equipoise.replan.remainder import Remainder
from equipoise.search import busiest_rank

__all__ = ["Curves", "MoveLittle", "Within", "anew_matters_from", "within"]

Ints = NDArray[np.int32]
Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

FEW = 8  # a plan made anew is not looked at where fewer than one slot in so many may change
LEVEL = 1000  # nor for layers whose busiest rank carries less than one part in so many above the mean by then
FINE = 256  # fixed-point loads are rounded to multiples of this before layers are weighed against each other


@dataclass(frozen=True)
class MoveLittle:
    """How far a plan may be from the placement in force, as its provenance records it.

    Parameters
    ----------
    max_transfers : int or None
        Transfers in each layer, at most; None sets no limit.
    max_transfers_total : int or None
        Transfers in all layers together, at most; None sets no limit.
    lost_ranks : tuple of int
        Ranks whose slots stay empty.
    anew : dict or None
        The strategy, with its parameters, of the plan made anew that layers could take; None if none was made.

    Raises
    ------
    InvalidInputError
        If a limit is not a whole number of at least 0.
    """

    max_transfers: int | None
    max_transfers_total: int | None
    lost_ranks: tuple[int, ...]
    anew: dict[str, Any] | None = None

    name: ClassVar[str] = "move-little"

    def __post_init__(self) -> None:
        for name in ("max_transfers", "max_transfers_total"):
            value: Any = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, count(value, name, least=0, otherwise=", or None"))

    @property
    def has_limit(self) -> bool:
        """Whether transfers are limited at all."""
        return self.max_transfers is not None or self.max_transfers_total is not None


class Curves:
    """How far descent comes from what is left of a placement, and what a plan made anew reaches instead.

    Parameters
    ----------
    problem : PlacementProblem
    left : Remainder
    threads : int or None
    """

    def __init__(self, problem: PlacementProblem, left: Remainder, threads: int | None) -> None:
        self.left, self.threads = left, threads
        self.level = _levels(left)
        self.anew_from = anew_matters_from(problem)
        self.slots_per_rank = problem.cluster.slots_per_rank
        self.anew: Anew | None = None
        self.busiest = np.empty(0, dtype=np.int64)  # of each layer made anew

    def descend(self, limit: int | Int64s) -> tuple[Ints, Int64s, Int64s]:
        """Descend with up to ``limit`` transfers a layer, or what it needs if that is more.

        ``limit`` may be one for each layer. Returns the slots, the curve of the busiest rank as whole numbers, and what
        was spent.
        """
        left, limits = self.left, np.maximum(self.left.transfers, limit)
        return descend(left.held, left.was, left.weight, left.node, left.home, self.level, limits, self.threads)

    def look_anew(self, curve: Int64s, problem: PlacementProblem, current: Placement, how: How) -> None:
        """Make a plan anew of the layers that ``curve`` leaves above the mean; it must reach to ``anew_from``.

        Which layers these are depends on no limit: so what a limit admits, a larger one admits too.
        """
        mean = self.left.weight.sum(axis=1) // len(self.left.alive)
        layers = np.flatnonzero(curve[:, self.anew_from] > mean + mean // LEVEL)
        self.anew = plan_anew(problem, current, self.left, layers, how)
        if self.anew is not None:
            alive = self.left.alive
            table = self.anew.held[:, alive].reshape(len(layers), -1)
            self.busiest = busiest_rank(table, self.left.weight[layers], len(alive))

    def joined(self, curve: Int64s) -> tuple[Int64s, Int64s]:
        """Return ``curve`` with the plan made anew as a point of it, and the transfers at each point.

        Both int64 [layers, transfers]. Where no step of descent was worth a transfer, that one is not counted.
        """
        curve = curve.copy()
        used = np.zeros(curve.shape, dtype=np.int64)
        used[:, 1:] = np.where(curve[:, 1:] < curve[:, :-1], np.arange(1, curve.shape[1]), 0)
        used = np.maximum.accumulate(used, axis=1)
        if self.anew is not None:
            for row, layer in enumerate(self.anew.layers):
                first = max(self.anew_from, int(self.anew.transfers[row]))
                better = self._is_better(row, curve[layer])
                better[:first] = False
                curve[layer, better], used[layer, better] = self.busiest[row], self.anew.transfers[row]
        return curve, used

    def best(self, limit: Int64s, held: Ints, curve: Int64s, spent: Int64s) -> tuple[Ints, Int64s, Int64s]:
        """Return the slots that so many transfers a layer lead to, the busiest ranks, and what was spent.

        ``held``, ``curve`` and ``spent`` are what descent led to within ``limit``; the first and last are changed.
        """
        busiest = curve[:, -1].copy()
        if self.anew is not None:
            for row, layer in enumerate(self.anew.layers):
                fits = limit[layer] >= max(self.anew_from, int(self.anew.transfers[row]))
                if fits and self._is_better(row, busiest[layer]):
                    held[layer], spent[layer] = self.anew.held[row], self.anew.transfers[row]
                    busiest[layer] = self.busiest[row]
        return held, busiest, spent

    def _is_better(self, row: int, busiest: Any) -> Any:
        """Whether a layer made anew carries less than ``busiest``, by more than rounding down its replicas explains."""
        return busiest - self.busiest[row] > self.slots_per_rank


@dataclass(frozen=True, eq=False)
class Within:
    """What a budget led to: int32 [layers, ranks, slots], int64 [layers], and the plan made anew, if one was."""

    held: Ints
    transfers: Int64s
    anew: Anew | None


def anew_matters_from(problem: PlacementProblem) -> int:
    """Return the transfers a layer from which on a plan made anew is looked at."""
    return -(-problem.cluster.num_slots // FEW)


def within(
    problem: PlacementProblem,
    current: Placement,
    left: Remainder,
    budget: MoveLittle,
    how: How,
) -> Within:
    """Return the best that was found within the budget; see ``equipoise.replan.replan``."""
    most, total = _clamped(problem, left, budget)
    curves = Curves(problem, left, how.threads)
    may_look = most >= curves.anew_from and (total is None or total >= curves.anew_from * problem.num_layers)
    if total is None or may_look:
        descended = curves.descend(most)
    if may_look:
        curves.look_anew(descended[1], problem, current, how)
    if total is None:
        held, _, spent = curves.best(np.full(problem.num_layers, most), *descended)
        return Within(held, spent, curves.anew)
    # The curves are one way of many, and giving each layer the same may do better.
    equal = np.clip(total // problem.num_layers, left.transfers, most)
    shares = [_shares(problem, curves, most, total), equal]
    found = [curves.best(share, *curves.descend(share)) for share in shares if share.sum() <= total]
    scale = _common_scale(problem)
    held, _, spent = min(found, key=lambda way: int(_on_scale(way[1], scale).sum()))
    return Within(held, spent, curves.anew)


def _clamped(problem: PlacementProblem, left: Remainder, budget: MoveLittle) -> tuple[int, int | None]:
    """Return the limits for a layer and for all, no larger than what is possible, or say why they are too small."""
    most, total, slots = budget.max_transfers, budget.max_transfers_total, problem.cluster.num_slots
    needed = int(left.transfers.max())
    if most is not None and needed > most:
        layer = int(left.transfers.argmax())
        raise InfeasibleError(
            f"layer {layer} has {needed} experts that no slot holds, and max_transfers is {most}. Placing them takes "
            f"max_transfers={needed}."
        )
    needed = int(left.transfers.sum())
    if total is not None and needed > total:
        raise InfeasibleError(
            f"{needed} experts, over all layers, are held by no slot, and max_transfers_total is {total}. Placing them "
            f"takes max_transfers_total={needed}."
        )
    most = slots if most is None else min(most, slots)
    if total is None:
        return most, None
    return min(most, total), min(total, problem.num_layers * slots)


def _shares(problem: PlacementProblem, curves: Curves, most: int, total: int) -> Int64s:
    """Return how many of ``total`` transfers each layer gets, int64 [layers]: those that save most tokens."""
    scale = _common_scale(problem)
    # Few layers want more than twice their equal part, so the curves are first followed that far.
    reach = most if curves.anew is not None else min(most, max(16, 2 * -(-total // problem.num_layers)))
    while True:
        curve, _ = curves.joined(curves.descend(reach)[1])
        share: Int64s = _share_out(_on_scale(np.where(curve == MAX, 0, curve), scale), curves.left.transfers, total)
        if reach == most or (share < reach).all():
            return share
        reach = min(most, 2 * reach)


def _common_scale(problem: PlacementProblem) -> Floats:
    """Return what the fixed-point loads of each layer are multiplied by to be comparable, [layers, 1]: at most 1."""
    hottest = problem.load.max(axis=1, keepdims=True)
    scale: Floats = hottest / max(hottest.max(), np.finfo(np.float64).tiny)
    return scale


def _on_scale(busiest: Int64s, scale: Floats) -> Int64s:
    """Return fixed-point loads [layers, ...] on the scale of the hottest layer, in whole multiples of ``FINE``.

    Coarser than the rounding of loads, so that what is equal in truth is equal here.
    """
    flat = busiest.reshape(len(busiest), -1)
    return np.rint(flat * scale / FINE).astype(np.int64).reshape(busiest.shape)


def _levels(left: Remainder) -> Int64s:
    """Return per layer what the busiest rank carries at least: the mean of the busiest node."""
    level: Int64s
    if not left.hierarchical:
        level = left.weight.sum(axis=1) // len(left.alive)
        return level
    ranks = np.bincount(left.node[left.alive])
    on_node = np.zeros((len(left.weight), len(ranks)), dtype=np.int64)
    for n in range(len(ranks)):
        on_node[:, n] = np.where(left.home == n, left.weight, 0).sum(axis=1) // max(ranks[n], 1)
    level = on_node.max(axis=1)
    return level


@native
def _share_out(curve, start, total):
    """Return the transfers of each layer: from ``start``, always the stretch that saves most tokens per transfer.

    Ties go to the lowest layer, and there to the shortest stretch.
    """
    layers, width = curve.shape
    share = start.copy()
    left = total - share.sum()
    slope, stretch = np.full(layers, -1.0), np.zeros(layers, dtype=np.int64)
    stale = np.ones(layers, dtype=np.bool_)
    while left > 0:
        best = -1
        for layer in range(layers):
            if stale[layer] or stretch[layer] > left:
                stale[layer], slope[layer], stretch[layer] = False, 0.0, 0
                for more in range(1, min(left, width - 1 - share[layer]) + 1):
                    saved = (curve[layer, share[layer]] - curve[layer, share[layer] + more]) / more
                    if saved > slope[layer]:
                        slope[layer], stretch[layer] = saved, more
            if slope[layer] > 0 and (best < 0 or slope[layer] > slope[best]):
                best = layer
        if best < 0:
            break
        share[best] += stretch[best]
        left -= stretch[best]
        stale[best] = True
    return share
