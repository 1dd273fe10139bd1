"""A plan made anew by a strategy, with ranks and nodes renamed so that most stays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.how import How
from equipoise.kernels.assignment.numba import assign
from equipoise.placement import Placement
from equipoise.problem import PlacementProblem
from equipoise.replan.levelling import GONE
from equipoise.replan.match_ranks import match_ranks
from equipoise.replan.remainder import Remainder, count_kept, what_is_left

__all__ = ["Anew", "match_nodes", "plan_anew"]

Ints = NDArray[np.int32]
Int64s = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Anew:
    """Some layers, planned anew.

    Attributes
    ----------
    layers : int64 array, ascending
    held : int32 array, shape (len(layers), num_ranks, slots_per_rank)
        The expert in each slot; ``GONE`` on a lost rank.
    transfers : int64 array, shape (len(layers),)
        What ``held`` takes.
    implementation : str
    strategy : Any
        With the parameters that make this again.
    """

    layers: Int64s
    held: Ints
    transfers: Int64s
    implementation: str
    strategy: Any

    @property
    def parameters(self) -> dict[str, Any]:
        """The strategy by name, and its parameters."""
        return {"strategy": self.strategy.name, **dataclasses.asdict(self.strategy)}


def plan_anew(
    problem: PlacementProblem,
    current: Placement,
    left: Remainder,
    layers: Int64s,
    how: How,
) -> Anew | None:
    """Plan ``layers`` of ``problem`` anew for the ranks that are left; None if they allow no plan, or no layer asks."""
    smaller = what_is_left(problem, left)
    if smaller is None or not len(layers):
        return None
    if len(layers) < problem.num_layers:
        smaller = smaller.of_layers(layers)
    found = how.find(smaller)
    old = current.physical_to_logical[layers].reshape(len(layers), current.num_ranks, -1)
    table = found.physical_to_logical.reshape(len(layers), len(left.alive), -1)
    nodes = smaller.cluster.num_nodes if smaller.is_hierarchical else 1
    held, transfers = _rename(table, old, left.alive, problem.cluster.num_ranks, nodes, how.threads)
    return Anew(layers, held, transfers, found.implementation, found.strategy)


def _rename(
    table: Ints, was: Ints, alive: Int64s, num_ranks: int, num_nodes: int, threads: int | None
) -> tuple[Ints, Int64s]:
    """Return a plan for the ranks that are left with ranks and nodes renamed so that most stays, and its transfers."""
    layers, ranks, slots = table.shape
    width = max(slots, was.shape[2])
    old = np.full((layers, num_ranks, width), -1, dtype=np.int32)
    both = min(num_ranks, was.shape[1])
    old[:, :both, : was.shape[2]] = was[:, :both]
    old = old[:, alive]
    new = np.full((layers, ranks, width), -1, dtype=np.int32)
    new[:, :, :slots] = table
    matched = match_nodes(new, old, num_nodes, threads).reshape(layers, ranks, width)
    # What has no expert comes last in a row, so that cutting to the new width loses nothing.
    order = np.argsort(matched < 0, axis=2, kind="stable")
    matched = np.take_along_axis(matched, order, axis=2)[:, :, :slots]
    held = np.full((layers, num_ranks, slots), GONE, dtype=np.int32)
    held[:, alive] = matched
    transfers: Int64s = (matched >= 0).sum(axis=(1, 2)) - count_kept(matched, old).sum(axis=1)
    return held, transfers


def match_nodes(new: Ints, old: Ints, num_nodes: int, threads: int | None) -> Ints:
    """Return ``new`` with its nodes, and the ranks of each, renamed so that most experts stay on their rank.

    Both int32 [layers, ranks, slots]; the result is [layers, ranks * slots]. Exact: the ranks of each pair of nodes
    are matched first, then the nodes.
    """
    layers, ranks, slots = new.shape
    by_node = new.reshape(layers, num_nodes, -1)
    flat = old.reshape(layers, -1)
    if num_nodes == 1:
        return match_ranks(by_node.reshape(layers, -1), flat, ranks, 1, threads)
    stay = np.zeros((layers, num_nodes, num_nodes), dtype=np.int64)  # [new node, old node]
    turned = np.empty((num_nodes, layers, num_nodes, by_node.shape[2]), dtype=np.int32)  # [turn, layer, old node]
    at = np.arange(num_nodes)
    for turn in range(num_nodes):
        source = (at + turn) % num_nodes
        matched = match_ranks(by_node[:, source].reshape(layers, -1), flat, ranks, num_nodes, threads)
        turned[turn] = matched.reshape(layers, num_nodes, -1)
        kept = count_kept(turned[turn].reshape(layers, ranks, slots), old)
        stay[:, source, at] = kept.reshape(layers, num_nodes, -1).sum(axis=2)
    out = np.empty_like(by_node)
    for layer in range(layers):
        source = assign(-stay[layer])  # the new node that each old node takes over
        out[layer] = turned[(source - at) % num_nodes, layer, at]
    return out.reshape(layers, -1)
