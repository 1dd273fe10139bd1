"""Levelling the ranks within a budget of transfers, and what else the budget admits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InfeasibleError
from equipoise.how import How
from equipoise.kernels.native import native
from equipoise.problem import PlacementProblem
from equipoise.replan.anew import Anew, plan_anew
from equipoise.replan.budget import Budget
from equipoise.replan.fill import filled
from equipoise.replan.in_force import InForce
from equipoise.replan.levelling.numba import MAX, descend
from equipoise.replan.remainder import Remainder, remainder
from equipoise.search import busiest_rank
from equipoise.threads import part

__all__ = [
    "FEW",
    "ROUGHLY",
    "Curves",
    "Within",
    "anew_matters_from",
    "check_nothing_is_dropped",
    "clamped",
    "emptied",
    "pays",
    "raised",
    "share_out",
    "within",
]

Ints = NDArray[np.int32]
Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

FEW = 8  # a plan made anew is not looked at where fewer than one slot in so many may change
LEVEL = 1000  # nor for layers whose busiest rank carries less than one part in so many above the mean by then
ROUGHLY = 3.0  # tolerances: what a layer that would move many slots for less is levelled to, and a plan made anew gains
FINE = 256  # fixed-point loads are rounded to multiples of this before layers are weighed against each other


class Curves:
    """How far descent comes from what is left of a placement, and what a plan made anew reaches instead.

    Parameters
    ----------
    start : InForce
    how : How
        By which a plan is made anew.
    budget : Budget, optional
        What counts as level, and whether slots may stay empty.
    """

    def __init__(self, start: InForce, how: How, budget: Budget | None = None) -> None:
        budget = Budget() if budget is None else budget
        self.start, self.how, self.left = start, how, remainder(start)
        if budget.complete:
            self.left = filled(self.left, start.node)
        self.mean = _levels(start, self.left)
        self.level = raised(self.mean, budget.tolerance)
        self.tolerance = budget.tolerance
        self.anew_from = anew_matters_from(start.problem)
        self.slots_per_rank = start.problem.cluster.slots_per_rank
        self.has_looked = False
        self.anew: Anew | None = None
        self.busiest = np.empty(0, dtype=np.int64)  # of each layer made anew
        self.is_worth = np.empty(0, dtype=np.bool_)  # of each, whether that is light enough to be looked at

    def descend(self, limit: int | Int64s) -> tuple[Ints, Int64s, Int64s]:
        """Descend with up to ``limit`` transfers a layer, or what it needs if that is more.

        ``limit`` may be one for each layer. Returns the slots, the curve of the busiest rank as whole numbers, and what
        was spent.
        """
        left, limits = self.left, np.maximum(self.left.transfers, limit)
        return descend(
            left.held, left.was, left.weight, self.start.node, left.home, self.level, limits, self.how.threads
        )

    def look_anew(self, curve: Int64s) -> None:
        """Make a plan anew of the layers that ``curve`` leaves above the mean; it must reach to ``anew_from``.

        Which layers these are depends on no limit: so what a limit admits, a larger one admits too, and once is enough.
        """
        if self.has_looked:
            return
        mean = self.left.weight.sum(axis=1) // len(self.start.alive)
        by_then = curve[:, self.anew_from]
        layers = np.flatnonzero((by_then > mean + mean // LEVEL) & (by_then > raised(mean, self.tolerance)))
        self.look_at(layers)
        if self.anew is not None:
            self.is_worth = pays(self.busiest, by_then[layers], self.tolerance)
        self.has_looked = True

    def look_at(self, layers: Int64s) -> None:
        """Make a plan anew of ``layers``."""
        self.anew = plan_anew(self.start, layers, self.how)
        if self.anew is not None:
            alive = self.start.alive
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
        return self.is_worth[row] & (busiest - self.busiest[row] > self.slots_per_rank)


@dataclass(frozen=True, eq=False)
class Within:
    """What a budget led to.

    ``held`` int32 [layers, ranks, slots], ``transfers`` int64 [layers], and the plan made anew, if one was.
    """

    held: Ints
    transfers: Int64s
    anew: Anew | None


def raised(level: Int64s, tolerance: float | None) -> Int64s:
    """Return what a rank may carry to count as level, where the mean is ``level``."""
    return level if tolerance is None else level + (level * tolerance).astype(np.int64)


def pays(anew: Int64s, steps: Int64s, tolerance: float | None) -> NDArray[np.bool_]:
    """Whether the busiest rank of plans made anew is enough below that after steps, both int64 [layers].

    It must be so by three times the tolerance: such a plan moves most of a layer.
    """
    if tolerance is None:
        return np.ones(len(anew), dtype=np.bool_)
    worth: NDArray[np.bool_] = anew < steps - (steps * min(ROUGHLY * tolerance, 1.0)).astype(np.int64)
    return worth


def anew_matters_from(problem: PlacementProblem) -> int:
    """Return the transfers a layer from which on a plan made anew is looked at."""
    return -(-problem.cluster.num_slots // FEW)


@part
def within(curves: Curves, budget: Budget, closed: NDArray[np.bool_] | None = None) -> Within:
    """Return the best that was found within the limits on transfers; see ``equipoise.replan.replan``.

    Of a limit on all layers, those that are ``closed``, bool [layers], get no more than their experts need.
    """
    start, left = curves.start, curves.left
    problem = start.problem
    if not budget.complete:
        check_nothing_is_dropped(start, left, budget)
    most, total = clamped(problem, left, budget)
    may_look = most >= curves.anew_from and (total is None or total >= curves.anew_from * problem.num_layers)
    if total is None or may_look:
        descended = curves.descend(most)
    if may_look:
        curves.look_anew(descended[1])
    if total is None:
        held, _, spent = curves.best(np.full(problem.num_layers, most), *descended)
        return Within(held, spent, curves.anew)
    # The curves are one way of many, and giving each layer the same may do better.
    closed = np.zeros(problem.num_layers, dtype=np.bool_) if closed is None else closed
    each = (total - left.transfers[closed].sum()) // max(int((~closed).sum()), 1)
    equal = np.where(closed, left.transfers, np.clip(each, left.transfers, most))
    shares = [_shares(problem, curves, most, total, closed), equal]
    found = [curves.best(share, *curves.descend(share)) for share in shares if share.sum() <= total]
    scale = _common_scale(problem)
    held, _, spent = min(found, key=lambda way: int(_on_scale(way[1], scale).sum()))
    return Within(held, spent, curves.anew)


def emptied(start: InForce, held: Ints) -> Int64s:
    """Return how many slots of each layer and rank that is left, [layers, ranks], are empty now and were not."""
    alive = start.alive[start.alive < start.placement.num_ranks]
    old = start.slots[:, alive, : held.shape[2]]
    more: Int64s = (old >= 0).sum(axis=2) - (held[:, alive] >= 0).sum(axis=2)
    return np.maximum(more, 0)


def check_nothing_is_dropped(start: InForce, left: Remainder, budget: Budget) -> None:
    """Insist on at least one transfer where groups that lie on several nodes make experts leave their slots."""
    if not start.hierarchical or 0 not in (budget.max_transfers, budget.max_transfers_total):
        return
    slots = emptied(start, left.held).sum(axis=1)
    if slots.any():
        layer = int(slots.argmax())
        raise InfeasibleError(
            f"layer {layer} has expert groups on more than one node, and {slots[layer]} of its slots would have to "
            "be emptied, which 0 transfers do not fill again. Allow 1 transfer at least, or plan with "
            "num_expert_groups=None."
        )


def clamped(problem: PlacementProblem, left: Remainder, budget: Budget) -> tuple[int, int | None]:
    """Return the limits for a layer and for all, no larger than what is possible, or say why they are too small."""
    most, total, slots = budget.max_transfers, budget.max_transfers_total, problem.cluster.num_slots
    needed = int(left.transfers.max())
    if most is not None and needed > most and not budget.complete:
        layer = int(left.transfers.argmax())
        raise InfeasibleError(
            f"layer {layer} has {needed} experts that no slot holds, and max_transfers is {most}. Placing them takes "
            f"max_transfers={needed}."
        )
    needed = int(left.transfers.sum())
    if total is not None and budget.complete:
        total = max(total, needed)
    if total is not None and needed > total:
        raise InfeasibleError(
            f"{needed} experts, over all layers, are held by no slot, and max_transfers_total is {total}. Placing them "
            f"takes max_transfers_total={needed}."
        )
    most = slots if most is None else min(most, slots)
    if total is None:
        return most, None
    return min(most, total), min(total, problem.num_layers * slots)


def _shares(problem: PlacementProblem, curves: Curves, most: int, total: int, closed: NDArray[np.bool_]) -> Int64s:
    """Return how many of ``total`` transfers each layer gets, int64 [layers]: those that save most tokens."""
    scale = _common_scale(problem)
    # Few layers want more than twice their equal part, so the curves are first followed that far.
    reach = most if curves.anew is not None else min(most, max(16, 2 * -(-total // problem.num_layers)))
    while True:
        curve, _ = curves.joined(curves.descend(reach)[1])
        curve[(curve == MAX) | closed[:, None]] = 0
        share: Int64s = share_out(_on_scale(curve, scale), curves.left.transfers, total)
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


def _levels(start: InForce, left: Remainder) -> Int64s:
    """Return per layer what the busiest rank carries at least: the mean of the busiest node."""
    level: Int64s
    if not start.hierarchical:
        level = left.weight.sum(axis=1) // len(start.alive)
        return level
    ranks = np.bincount(start.node[start.alive])
    on_node = np.zeros((len(left.weight), len(ranks)), dtype=np.int64)
    for n in range(len(ranks)):
        on_node[:, n] = np.where(left.home == n, left.weight, 0).sum(axis=1) // max(ranks[n], 1)
    level = on_node.max(axis=1)
    return level


@native
def share_out(curve, start, total):
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
