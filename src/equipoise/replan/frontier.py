"""What a transfer buys: balancedness against transfers, from the placement in force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import count
from equipoise.arrays import as_numpy
from equipoise.errors import InvalidInputError
from equipoise.how import How
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem, as_problem
from equipoise.replan.budget import Budget
from equipoise.replan.curves import Curves
from equipoise.replan.foreseen import Ahead, is_foreseen
from equipoise.replan.in_force import InForce, known_lost
from equipoise.replan.levelling.numba import MAX
from equipoise.replan.replan import replan
from equipoise.robust.scenarios import expected_balancedness

__all__ = ["Frontier", "frontier", "frontier_and_plan"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frontier:
    """Balancedness against transfers.

    Attributes
    ----------
    balancedness : float64 array, shape (num_layers, most + 1)
        Of each layer with at most k transfers, k = 0, 1, ...; NaN where a layer needs more to place every expert.
        It never falls with k, unless it is what a forecast lets expect: see ``frontier``.
    transfers : int64 array, shape (most + 1,)
        What that takes over all layers: at most k times the layers.
    bytes_per_expert : int or None
        Size of one expert's weights in one layer.
    """

    balancedness: Floats
    transfers: NDArray[np.int64]
    bytes_per_expert: int | None

    def __post_init__(self) -> None:
        balancedness, transfers = as_numpy(self.balancedness, "balancedness"), as_numpy(self.transfers, "transfers")
        if balancedness.ndim != 2 or balancedness.shape[1:] != transfers.shape or 0 in balancedness.shape:
            raise InvalidInputError(
                f"balancedness has shape {balancedness.shape} and transfers {transfers.shape}; they must be (layers, "
                "budgets) and (budgets,)."
            )
        if transfers.dtype.kind not in "iu" or transfers.min() < 0 or np.isnan(balancedness[:, -1]).any():
            raise InvalidInputError("transfers are whole numbers, and with the most of them every layer is known.")
        if self.bytes_per_expert is not None:
            count(self.bytes_per_expert, "bytes_per_expert", most=2**53)
        object.__setattr__(self, "balancedness", balancedness)
        object.__setattr__(self, "transfers", transfers)

    @property
    def mean_balancedness(self) -> Floats:
        """Averaged over the layers, for each k; NaN as long as a layer needs more."""
        mean: Floats = self.balancedness.mean(axis=0)
        return mean

    @property
    def worst_balancedness(self) -> Floats:
        """Of the worst layer, for each k."""
        worst: Floats = self.balancedness.min(axis=0)
        return worst

    @property
    def knee(self) -> int:
        """The k after which a transfer buys less than on average over the curve.

        The point that lies highest above the straight line from the first to the last point of
        ``mean_balancedness``, ties to the lowest.
        """
        mean = self.mean_balancedness
        first = int(np.argmax(~np.isnan(mean)))
        part = mean[first:]
        line = np.linspace(part[0], part[-1], len(part))
        return first + int(np.argmax(part - line))

    def summary(self) -> str:
        """Return the curve as a table for people, a line a budget, the knee marked."""
        most, knee, mean = len(self.transfers) - 1, self.knee, self.mean_balancedness
        shown = {0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, knee, most}
        lines = ["transfers a layer   in all layers       bytes   balancedness: mean, worst layer"]
        for k in sorted(k for k in shown if k <= most and not np.isnan(mean[k])):
            size = "-" if self.bytes_per_expert is None else _bytes(int(self.transfers[k]) * self.bytes_per_expert)
            lines.append(
                f"{k:17,} {self.transfers[k]:15,} {size:>11} {mean[k]:20.4f} {self.worst_balancedness[k]:11.4f}"
                + ("  <- knee" if k == knee else "")
            )
        return "\n".join(lines)


def frontier(
    problem: PlacementProblem,
    current: Any,
    *,
    lost_ranks: Iterable[int] = (),
    restored_ranks: Iterable[int] = (),
    bytes_per_expert: int | None = None,
    threads: int | None = None,
) -> Frontier:
    """Return what each budget of transfers would buy.

    Parameters
    ----------
    problem : PlacementProblem
    current : Placement or Plan
        What is in force, as in ``equipoise.solve``.
    lost_ranks, restored_ranks : iterable of int
        As in ``equipoise.solve``.
    bytes_per_expert : int or None, default None
        Size of one expert's weights in one layer, if bytes are wanted too.
    threads : int or None, default None
        None uses all processors. It never changes the result.

    Returns
    -------
    Frontier
        Up to the budget after which no layer gains any more. ``solve(problem, current=current, max_transfers=k)``
        reaches the balancedness at k, the plan made anew by its default strategy among what it may take. Where the load
        is a forecast with errors, it is the balancedness that the errors let expect of the next window, and what never
        rises with k is the expected square of rank loads.

    Raises
    ------
    InvalidInputError, InfeasibleError
        As in ``equipoise.solve``.

    Examples
    --------
    >>> import equipoise as eq
    >>> problem = eq.PlacementProblem([[4, 4, 1, 1]], eq.Cluster(num_ranks=2, slots_per_rank=2))
    >>> eq.frontier(problem, eq.Placement([[0, 1, 2, 3]], 2, 4)).balancedness.tolist()
    [[0.625, 0.625, 1.0]]
    """
    if bytes_per_expert is not None:
        bytes_per_expert = count(bytes_per_expert, "bytes_per_expert", most=2**53)
    as_problem(problem)
    start = InForce.of(problem, current, known_lost(current, lost_ranks, restored_ranks))
    if is_foreseen(problem):
        return Frontier(*_foreseen(start, How.of(threads=threads)), bytes_per_expert)
    return _followed(Curves(start, How.of(threads=threads)), bytes_per_expert)


def frontier_and_plan(
    problem: PlacementProblem, current: Any, budget: Budget, how: How, bytes_per_expert: int | None = None
) -> tuple[Frontier, Plan]:
    """Return what each budget of transfers would buy, and the plan within one: what is made anew serves for both.

    The same as ``frontier``, whose plans made anew are those of ``how``, and ``solve(current=...)``.
    """
    start = InForce.of(problem, current, budget.lost_ranks)
    if is_foreseen(problem):
        return Frontier(*_foreseen(start, how), bytes_per_expert), replan(problem, current, budget, how)
    curves = Curves(start, how, budget)
    plan = replan(problem, current, budget, how, curves=curves)
    return _followed(curves, bytes_per_expert), plan


def _followed(curves: Curves, bytes_per_expert: int | None) -> Frontier:
    """Return the frontier that the curves make of a placement in force."""
    start, problem = curves.start, curves.start.problem
    _, curve, _ = curves.descend(problem.cluster.num_slots)
    curves.look_anew(curve)
    curve, used = curves.joined(curve)
    total = curves.left.weight.sum(axis=1)
    tokens = np.divide(problem.load.sum(axis=1), total, out=np.zeros(len(total)), where=total > 0)
    known = (curve < MAX) & (np.arange(curve.shape[1]) >= curves.left.transfers[:, None])
    largest = np.where(known, curve * tokens[:, None], np.nan)
    mean = problem.load.sum(axis=1, keepdims=True) / len(start.alive)
    balancedness = np.divide(mean, largest, out=np.where(known, 1.0, np.nan), where=largest > 0)
    # Tokens are counted in whole parts of the hottest expert; do not show that as more than level.
    balancedness = np.minimum(balancedness, 1.0)
    falls = np.flatnonzero((curve[:, 1:] < curve[:, :-1]).any(axis=0))
    most = max(int(falls.max(initial=-1)) + 1, int(curves.left.transfers.max()))
    return Frontier(balancedness[:, : most + 1], used.sum(axis=0)[: most + 1], bytes_per_expert)


def _foreseen(start: InForce, how: How) -> tuple[Floats, NDArray[np.int64]]:
    """Return the balancedness expected of the next window within each limit, [layers, limits], and the transfers."""
    forecast, ahead = start.problem.forecast, Ahead(start, Budget(), how)
    assert forecast is not None
    _, curve, most, _ = ahead.descend(start.problem.cluster.num_slots)
    ahead.look_anew(curve)
    held, reach = ahead.left.held, int(most.max())
    if ahead.anew is not None:
        reach = max(reach, ahead.anew_from, int(ahead.anew.transfers.max(initial=0)))
    balancedness, transfers = [], []
    for limit in range(reach + 1):
        held, line, spent, _ = ahead.descend(limit, held)  # on from where a smaller limit ended
        chosen, used = ahead.best(np.full(len(held), limit), held.copy(), line, spent.copy())
        known = ahead.left.transfers <= limit
        balanced = expected_balancedness(forecast, np.ascontiguousarray(chosen[:, start.alive]), how.threads)
        balancedness.append(np.where(known, balanced, np.nan))
        transfers.append(int(used.sum()))
    return np.stack(balancedness, axis=1), np.array(transfers)


def _bytes(number: int) -> str:
    size, units = float(number), ("B", "kB", "MB", "GB", "TB")
    for unit in units:
        if size < 1000 or unit == units[-1]:
            return f"{size:.3g} {unit}"
        size /= 1000
    raise AssertionError("the last unit has no end")
