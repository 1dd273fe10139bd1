"""Ways to plan: each is a row of data that knows how to place a problem, chosen by name."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_index, finite
from equipoise.backends import BACKENDS, Backend
from equipoise.bounds.grouping import all_groupings, best_groupings
from equipoise.bounds.table import first_floor
from equipoise.descent import EFFORTS
from equipoise.errors import InvalidInputError, UnknownNameError, shown
from equipoise.fixed_point import to_fixed_point
from equipoise.hierarchy import NodeRows, split_by_node
from equipoise.problem import PlacementProblem
from equipoise.regroup import find_regroupings
from equipoise.restarts import Settings, pack_items
from equipoise.search import Pack, Search, busiest_rank, pack_replicas, stopped_at

__all__ = [
    "DEFAULT",
    "STRATEGIES",
    "Found",
    "JointDescent",
    "PlainGreedy",
    "PrunedRestarts",
    "Strategy",
    "choose_strategy",
    "parameters_of",
]


@dataclass(frozen=True)
class Found:
    """What a strategy returns: the slots, and how it came to them."""

    physical_to_logical: NDArray[np.int32]
    implementation: str
    stages: dict[str, int]
    strategy: Any
    """The strategy with the parameters that make this again: without a clock, if one was used."""


class Strategy(Protocol):
    """A frozen dataclass of parameters that can place a problem."""

    name: ClassVar[str]
    backends: ClassVar[tuple[str, ...]]
    """What it runs on, by name: rows of ``equipoise.backends``."""

    def place(self, problem: PlacementProblem, seed: int, backend: Backend, threads: int | None) -> Found:
        """Return a placement of ``problem``; the same for the same arguments, whatever ``backend`` and ``threads``.

        ``backend`` is one of ``backends``, and runs here.
        """


@dataclass(frozen=True)
class PrunedRestarts(Settings):
    """Massively parallel random restarts with pruned refinement: the strategy this project is named for.

    Replica counts by d'Hondt, groups to nodes and replicas to ranks by pruned restarts; see
    ``equipoise.restarts``. Parameters are those of ``Settings``.
    """

    name: ClassVar[str] = "pruned-restarts"
    backends: ClassVar[tuple[str, ...]] = tuple(BACKENDS)

    def place(self, problem: PlacementProblem, seed: int, backend: Backend, threads: int | None) -> Found:
        """Return the best of the refined survivors of each layer, with duplicates moved apart."""

        def pack(weight: NDArray[np.int64], packs: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
            """Pack items by restarts."""
            return pack_items(weight, packs, self, seed, backend, threads)

        fixed = to_fixed_point(problem.load, problem.cluster.num_ranks)
        held, rows = _replicate_then_pack(problem, fixed, pack)
        stages = {"restarts": self.restarts * rows, "refined": min(self.refined, self.restarts) * rows}
        return Found(held, backend.name, stages, self)


@dataclass(frozen=True)
class PlainGreedy:
    """The published method: d'Hondt replica counts, then one greedy packing. It is restart 0 of pruned restarts."""

    name: ClassVar[str] = "plain-greedy"
    backends: ClassVar[tuple[str, ...]] = ("numba",)

    def place(self, problem: PlacementProblem, seed: int, backend: Backend, threads: int | None) -> Found:
        """Return the greedy packing of each layer, with duplicates moved apart."""
        return Found(
            _place_plainly(problem, to_fixed_point(problem.load, problem.cluster.num_ranks)), "numba", {}, self
        )


def _place_plainly(problem: PlacementProblem, fixed: NDArray[np.int64], most: int | None = None) -> NDArray[np.int32]:
    from equipoise.kernels.greedy.numba import pack

    return _replicate_then_pack(problem, fixed, pack, most)[0]


def _replicate_then_pack(
    problem: PlacementProblem, fixed: NDArray[np.int64], pack: Pack, most: int | None = None
) -> tuple[NDArray[np.int32], int]:
    """Return the expert in each slot, and how many rows (layers, or nodes of layers) were packed.

    Groups go to nodes and replicas to ranks as ``pack`` says; replica counts are d'Hondt's, no more than ``most`` of an
    expert. By default that is one a rank, and replicas that meet on a rank are moved apart. With ``most``, groups stand
    on their node in the order in which they came there, as in the published program: ties go to the first.
    """
    from equipoise.kernels.replication.numba import replicate

    node_of_group = place = None
    if problem.is_hierarchical:
        assert problem.num_expert_groups is not None
        group_weight = fixed.reshape(len(fixed), problem.num_expert_groups, -1).sum(axis=2)
        node_of_group, place = pack(group_weight, problem.cluster.num_nodes)
    rows = split_by_node(problem, fixed, node_of_group, place if most else None)
    counts = replicate(rows.weight, rows.num_slots, most or rows.num_ranks)
    held = rows.name(pack_replicas(rows.weight, rows, *counts, pack, apart=most is None))
    return held.reshape(problem.num_layers, -1), len(held)


@dataclass(frozen=True)
class JointDescent:
    """Replica counts and packing decided together, stopped as soon as the proved gap is small enough.

    Parameters
    ----------
    max_gap : float, default 0.001
        Stop a layer when its busiest rank is proved to be within this of the optimum. Finite, not negative.
    effort : str, default "balanced"
        What a layer that stays above ``max_gap`` may cost; see ``equipoise.descent.EFFORTS``.
    deadline : float or None, default None
        Seconds from the start after which the search of every layer ends where it stands, within some 20 milliseconds.
        Layers that it had not come to get a first deal, or the plain greedy plan where that is better.
        Where each ended is ``stop_after`` of the plan's parameters.
    stop_after : int, sequence of int, or None, default None
        Steps after which the search of a layer (or of a node of a layer) ends: one number for all, or one for each, -1
        for no limit. It makes a plan that a deadline cut short again, without a clock.

    Notes
    -----
    Stages and their order are in ``equipoise.descent``. Work is counted in steps, not by a clock: by default a layer
    of at most 1,024 slots takes no more than some 20 milliseconds of one core, whatever its load. In a hierarchical
    problem all groupings of groups to nodes are tried where they are few; nodes that are less busy than the bound
    of the busiest are not searched further.
    """

    max_gap: float = 0.001
    effort: str = "balanced"
    deadline: float | None = None
    stop_after: int | Sequence[int] | None = None

    name: ClassVar[str] = "joint-descent"
    backends: ClassVar[tuple[str, ...]] = ("numba",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_gap", finite(self.max_gap, "max_gap"))
        if self.deadline is not None:
            object.__setattr__(self, "deadline", finite(self.deadline, "deadline"))
        if not isinstance(self.effort, str) or self.effort not in EFFORTS:
            raise UnknownNameError(f"effort is {shown(self.effort)}; it must be one of {', '.join(EFFORTS)}.")
        object.__setattr__(self, "stop_after", _steps(self.stop_after))

    def place(self, problem: PlacementProblem, seed: int, backend: Backend, threads: int | None) -> Found:
        """Return the best placement of each layer that the stages found."""
        start = time.monotonic()
        fixed = to_fixed_point(problem.load, problem.cluster.num_ranks)
        node_of_group, floor = self._group(problem, fixed, threads)
        rows = split_by_node(problem, fixed, node_of_group)
        layers, nodes = problem.num_layers, len(rows.weight) // problem.num_layers
        search = Search(rows, floor, self.max_gap, threads, nodes)
        with stopped_at(None if self.deadline is None else start + self.deadline) as stop:
            ended = search.run(self.effort, stop, self._limits(0, len(rows.weight), nodes > 1))
            found, busiest = search.held.reshape(layers, -1), search.busiest.reshape(layers, -1)
            reached = busiest.max(axis=1)
            if node_of_group is not None:
                ended = self._regroup(problem, fixed, search, found, reached, stop, ended)
        strategy = self
        if self.deadline is not None:
            strategy = dataclasses.replace(self, deadline=None, stop_after=_listed(ended))
        open_ = ~search.within.reshape(layers, -1).all(axis=1)
        doubtful = open_.copy()
        if node_of_group is not None:
            doubtful |= _may_group_better(problem, fixed, node_of_group, busiest)
            open_ |= reached > floor.reshape(layers, -1)[:, 0] * (1 + self.max_gap)
        _keep_plain(problem, fixed, found, reached, np.flatnonzero(doubtful))
        if node_of_group is not None:
            # Two replicas on one rank give it a larger share, or take up a slot that nothing else should have. Where a
            # node has few ranks, nothing without duplicates need come near that.
            slots = problem.cluster.num_slots
            _keep_plain(problem, fixed, found, reached, np.flatnonzero(open_), slots, self.max_gap)
        return Found(found, "numba", search.stages, strategy)

    def _regroup(
        self,
        problem: PlacementProblem,
        fixed: NDArray[np.int64],
        search: Search,
        found: NDArray[np.int32],
        reached: NDArray[np.int64],
        stop: NDArray[np.bool_],
        ended: NDArray[np.int64] | None,
    ) -> NDArray[np.int64] | None:
        """Try other groupings where that of a layer stays above the target; return where all searches ended."""
        groups = problem.num_expert_groups
        assert groups is not None
        first = len(search.held)
        was_stopped = bool(stop[0]) or (isinstance(self.stop_after, tuple) and len(self.stop_after) == first)
        if was_stopped or all_groupings(groups, problem.cluster.num_nodes) is None:
            return ended
        promised = search.floor.reshape(problem.num_layers, -1)[:, 0]  # by the best grouping
        open_ = np.flatnonzero(reached > promised * (1 + self.max_gap))
        others = find_regroupings(problem, fixed, reached, open_, self.effort)
        if others is None:
            return ended
        number = len(others.layer)
        parts = int(np.bincount(others.layer).max())
        again = Search(others.rows, promised[others.layer], self.max_gap, search.threads, parts)
        last = again.run(self.effort, stop, self._limits(first, number))
        others.choose(again.held, again.busiest, found, reached)
        for stage, times in again.stages.items():
            search.stages[stage] += times
        if ended is None and last is None:
            return None
        whole = np.full(first + number, np.iinfo(np.int64).max)
        whole[:first] = whole[:first] if ended is None else ended
        whole[first:] = whole[first:] if last is None else last
        return whole

    def _limits(self, first: int, rows: int, more: bool = False) -> NDArray[np.int64] | None:
        """Return after how many steps the search of each of ``rows`` from ``first`` on ends, or None for no limit.

        There may be numbers for ``more`` rows than these.
        """
        if self.stop_after is None:
            return None
        limits = np.array(self.stop_after, np.int64)
        if limits.ndim and (len(limits) < first + rows or (len(limits) > first + rows and not more)):
            raise InvalidInputError(
                f"stop_after has {len(limits)} numbers, and {first + rows} are planned; give one for each."
            )
        limits = limits[first : first + rows] if limits.ndim else np.broadcast_to(limits, rows)
        return np.where(limits < 0, np.iinfo(np.int64).max, limits)

    def _group(
        self, problem: PlacementProblem, fixed: NDArray[np.int64], threads: int | None
    ) -> tuple[NDArray[np.int32] | None, NDArray[np.int64]]:
        """Return the node of each group, None for a global problem, and what each row need not go below."""
        cluster = problem.cluster
        if not problem.is_hierarchical:
            return None, first_floor(problem, fixed)
        best = best_groupings(problem, fixed.astype(np.float64))
        if best is not None:
            return best[0], np.repeat(np.ceil(best[1]).astype(np.int64), cluster.num_nodes)
        assert problem.num_expert_groups is not None
        nodes, groups = cluster.num_nodes, problem.num_expert_groups
        group_weight = fixed.reshape(len(fixed), groups, -1).sum(axis=2)
        names = np.broadcast_to(np.arange(groups, dtype=np.int32), group_weight.shape)
        packing = Search(NodeRows(group_weight, names, nodes, groups), np.zeros(len(fixed), np.int64), 0.0, threads)
        packing.run("balanced", np.zeros(1, np.bool_))
        node_of_group = np.empty((len(fixed), groups), np.int32)
        owner = np.repeat(np.arange(nodes, dtype=np.int32), groups // nodes)
        np.put_along_axis(node_of_group, packing.held.astype(np.int64), owner[None, :], axis=1)
        busiest = np.zeros((len(fixed), nodes), np.int64)
        for node in range(nodes):
            busiest[:, node] = np.where(node_of_group == node, group_weight, 0).sum(axis=1)
        return node_of_group, np.repeat(busiest.max(axis=1) // cluster.ranks_per_node, nodes)


def _steps(stop_after: Any) -> int | tuple[int, ...] | None:
    """Check ``stop_after`` and return it with plain numbers."""
    if stop_after is None:
        return None
    listed = isinstance(stop_after, Sequence) and not isinstance(stop_after, str)
    numbers = list(stop_after) if listed else [stop_after]
    for number in numbers:
        if not -1 <= as_index(number, -2) < 2**63:
            raise InvalidInputError(
                f"stop_after is {shown(stop_after)}; it must be a number of steps, or a list of them, from -1 to "
                "2**63 - 1."
            )
    return tuple(as_index(number) for number in numbers) if listed else as_index(numbers[0])


def _listed(ended: NDArray[np.int64] | None) -> tuple[int, ...] | None:
    """Return limits of steps as ``stop_after`` has them: -1 for none."""
    if ended is None:
        return None
    return tuple(np.where(ended == np.iinfo(np.int64).max, -1, ended).tolist())


def _keep_plain(
    problem: PlacementProblem,
    fixed: NDArray[np.int64],
    found: NDArray[np.int32],
    reached: NDArray[np.int64],
    layers: NDArray[np.int64],
    most: int | None = None,
    margin: float = 0.0,
) -> None:
    """Put the plain greedy plan into ``found`` for those of ``layers`` where its busiest rank carries less.

    ``reached`` int64 [all layers] is what that of ``found`` carries, and by more than ``margin`` the plain plan must be
    better. Elsewhere descent has looked at the plain answer itself; here that may group, or move apart, otherwise. With
    ``most`` replicas of an expert, those that meet on a rank stay there.
    """
    if len(layers):
        plain = _place_plainly(problem.of_layers(layers), fixed[layers], most)
        carried = busiest_rank(plain, fixed[layers], problem.cluster.num_ranks)
        better = carried * (1 + margin) < reached[layers]
        found[layers[better]] = plain[better]
        reached[layers[better]] = carried[better]


def _may_group_better(
    problem: PlacementProblem, fixed: NDArray[np.int64], node_of_group: NDArray[np.int32], busiest: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the plain plan of a layer may be better for its grouping; ``busiest`` [layers, nodes] is what was found.

    It is not if one of its nodes is too full for that, or has the groups of the busiest node: there descent has
    looked at the plain answer.
    """
    from equipoise.kernels.greedy.numba import pack

    (layers, groups), nodes = node_of_group.shape, problem.cluster.num_nodes
    weight = fixed.reshape(layers, groups, -1).sum(axis=2)
    plain, _ = pack(weight, nodes)
    cell = plain + np.arange(layers)[:, None] * nodes
    fullest = np.bincount(cell.ravel(), weight.ravel()).reshape(layers, nodes).max(axis=1)
    worst = np.argsort(node_of_group != busiest.argmax(axis=1)[:, None], axis=1, kind="stable")[:, : groups // nodes]
    homes = np.take_along_axis(plain, worst, axis=1)
    apart = (homes != homes[:, :1]).any(axis=1)
    may: NDArray[np.bool_] = apart & (fullest < busiest.max(axis=1) * problem.cluster.ranks_per_node)
    return may


_ROWS = (JointDescent, PrunedRestarts, PlainGreedy)
STRATEGIES: dict[str, type[Any]] = {strategy.name: strategy for strategy in _ROWS}
"""Frozen dataclasses that are a ``Strategy``, by name."""


DEFAULT = JointDescent.name
"""The strategy of whoever asks for none."""


def parameters_of(strategy: str) -> list[str]:
    """Return the names of the parameters of the strategy called so.

    Raises
    ------
    UnknownNameError
        If there is no such strategy.
    """
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise UnknownNameError(f"strategy is {shown(strategy)}; it must be one of {', '.join(STRATEGIES)}.")
    return [field.name for field in dataclasses.fields(STRATEGIES[strategy])]


def choose_strategy(name: str, **parameters: Any) -> Strategy:
    """Return the strategy called ``name`` with the given parameters.

    Raises
    ------
    UnknownNameError
        If there is no such strategy, or it has no such parameter.

    Examples
    --------
    >>> choose_strategy("pruned-restarts", restarts=256)
    PrunedRestarts(restarts=256, refined=64, noise=0.2, swaps=50, extremes=4)
    """
    known = parameters_of(name)
    for parameter in parameters:
        if parameter not in known:
            raise UnknownNameError(
                f"{name} has no parameter {shown(parameter)}; it has {', '.join(known) if known else 'none'}."
            )
    chosen: Strategy = STRATEGIES[name](**parameters)
    return chosen
