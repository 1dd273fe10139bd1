"""A plan made anew by a strategy, with ranks and nodes renamed so that most stays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.how import How
from equipoise.replan.in_force import InForce
from equipoise.replan.levelling import GONE
from equipoise.replan.match_ranks import match_nodes
from equipoise.replan.remainder import count_kept
from equipoise.threads import part

__all__ = ["Anew", "plan_anew"]

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


@part
def plan_anew(start: InForce, layers: Int64s, how: How) -> Anew | None:
    """Plan ``layers`` of the problem anew for the ranks that are left; None if they allow no plan, or no layer asks."""
    smaller = start.problem_of_those_left()
    if smaller is None or not len(layers):
        return None
    if len(layers) < smaller.num_layers:
        smaller = smaller.of_layers(layers)
    found = how.find(smaller)
    table = found.physical_to_logical.reshape(len(layers), len(start.alive), -1)
    nodes = smaller.cluster.num_nodes if smaller.is_hierarchical else 1
    held, transfers = _rename(table, start, layers, nodes, how.threads)
    return Anew(layers, held, transfers, found.implementation, found.strategy)


@part
def _rename(table: Ints, start: InForce, layers: Int64s, num_nodes: int, threads: int | None) -> tuple[Ints, Int64s]:
    """Return a plan for the ranks that are left with ranks and nodes renamed so that most stays, and its transfers."""
    old = start.slots[layers]
    if not start.is_as_asked:
        table, old = _as_wide(table, old, start)
    held = match_nodes(table, old, num_nodes, threads)
    transfers: Int64s = (held >= 0).sum(axis=(1, 2)) - count_kept(held, old).sum(axis=1)
    if start.is_as_asked:
        return held, transfers
    # What has no expert comes last in a row, so that cutting to the new width loses nothing.
    order = np.argsort(held < 0, axis=2, kind="stable")
    cluster = start.problem.cluster
    whole = np.full((len(layers), cluster.num_ranks, cluster.slots_per_rank), GONE, dtype=np.int32)
    whole[:, start.alive] = np.take_along_axis(held, order, axis=2)[:, :, : cluster.slots_per_rank]
    return whole, transfers


def _as_wide(new: Ints, old: Ints, start: InForce) -> tuple[Ints, Ints]:
    """Return both tables for the ranks that are left, with as many slots a rank; what one of them lacks holds none."""
    layers, ranks, slots = new.shape
    width, num_ranks = max(slots, old.shape[2]), start.problem.cluster.num_ranks
    there = np.full((layers, num_ranks, width), -1, dtype=np.int32)
    both = min(num_ranks, old.shape[1])
    there[:, :both, : old.shape[2]] = old[:, :both]
    here = np.full((layers, ranks, width), -1, dtype=np.int32)
    here[:, :, :slots] = new
    return here, there[:, start.alive]
