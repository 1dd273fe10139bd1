"""What is in force, beside the problem that the next placement answers: which ranks are left, and on which nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_index, as_ranks
from equipoise.errors import InfeasibleError, InvalidInputError, InvalidPlacementError, counted, numbered, shown
from equipoise.placement import Placement
from equipoise.problem import Cluster, PlacementProblem

__all__ = ["InForce", "as_placement", "check_lost_ranks", "known_lost"]

Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class InForce:
    """A placement in force, and the problem that the next one answers.

    Attributes
    ----------
    problem : PlacementProblem
        Its cluster counts the lost ranks too; their slots stay empty.
    placement : Placement
        Of the same layers and experts. It may have fewer or more ranks (rank r is the same rank), fewer or more
        slots a rank, empty slots and experts without a slot.
    lost : tuple of int
        Ranks of either that hold nothing any more, ascending.
    alive : int64 array
        The ranks of the problem that are left, ascending.
    node : int32 array, shape (num_ranks,)
        Of each rank of the problem; 0 for all if it is not hierarchical.
    hierarchical : bool
        Whether expert groups are kept whole on the nodes that are left.
    """

    problem: PlacementProblem
    placement: Placement
    lost: tuple[int, ...]
    alive: NDArray[np.int64]
    node: Ints
    hierarchical: bool

    @classmethod
    def of(cls, problem: PlacementProblem, current: Any, lost_ranks: Iterable[int] = ()) -> InForce:
        """Return what is in force by ``current``, a placement or a plan.

        Raises
        ------
        InvalidInputError
            If ``current`` is neither, or ``lost_ranks`` names a rank that is in neither cluster, or every rank of the
            problem.
        InvalidPlacementError
            If ``current`` is for other layers or experts.
        InfeasibleError
            If the slots that are left cannot hold every expert.
        """
        placement, cluster = as_placement(current), problem.cluster
        layers, experts = problem.num_layers, problem.num_logical_experts
        if (placement.num_layers, placement.num_logical_experts) != (layers, experts):
            raise InvalidPlacementError(
                f"the placement in force has {placement.num_layers} layers of {placement.num_logical_experts} experts, "
                f"the problem {layers} of {experts}; pass the placement of the same model."
            )
        lost = check_lost_ranks(lost_ranks, max(cluster.num_ranks, placement.num_ranks))
        alive = np.array([g for g in range(cluster.num_ranks) if g not in lost], dtype=np.int64)
        if not len(alive):
            raise InvalidInputError(f"lost_ranks names all {cluster.num_ranks} ranks; one at least must be left.")
        slots = len(alive) * cluster.slots_per_rank
        if slots < experts:
            need = counted(-(-experts // cluster.slots_per_rank) - len(alive), "rank")
            raise InfeasibleError(
                f"{counted(slots, 'slot')} on the {counted(len(alive), 'rank')} that "
                f"{'is' if len(alive) == 1 else 'are'} left cannot hold {experts} logical experts. Bring back {need}, "
                f"or use at least {-(-experts // len(alive))} slots a rank."
            )
        node = (np.arange(cluster.num_ranks) // cluster.ranks_per_node).astype(np.int32)
        nodes = len(np.unique(node[alive]))
        hierarchical = problem.is_hierarchical and nodes > 1 and (problem.num_expert_groups or 1) % nodes == 0
        if not hierarchical:
            node[:] = 0
        return cls(problem, placement, tuple(lost), alive, node, hierarchical)

    @property
    def is_as_asked(self) -> bool:
        """Whether no rank is lost, and the placement has the ranks and slots of the problem."""
        cluster, placement = self.problem.cluster, self.placement
        same = (placement.num_ranks, placement.num_slots) == (cluster.num_ranks, cluster.num_slots)
        return same and not self.lost

    @property
    def slots(self) -> Ints:
        """The expert in each slot, [layers, ranks of the placement, slots a rank]; -1 also where ranks are lost."""
        held = self.placement.physical_to_logical.reshape(self.placement.num_layers, self.placement.num_ranks, -1)
        gone = [rank for rank in self.lost if rank < self.placement.num_ranks]
        if gone:
            held = held.copy()
            held[:, gone] = -1
        return held

    def problem_of_those_left(self) -> PlacementProblem | None:
        """Return the problem without its lost ranks; None if nodes that groups must keep to have unequal ranks left."""
        cluster = self.problem.cluster
        if len(self.alive) == cluster.num_ranks:
            return self.problem
        if not self.hierarchical:
            return dataclasses.replace(
                self.problem, cluster=Cluster(len(self.alive), cluster.slots_per_rank), num_expert_groups=None
            )
        ranks = np.bincount(self.node[self.alive])
        ranks = ranks[ranks > 0]
        if (ranks != ranks[0]).any():
            return None
        return dataclasses.replace(self.problem, cluster=Cluster(len(self.alive), cluster.slots_per_rank, len(ranks)))


def check_lost_ranks(lost_ranks: Iterable[int], num_ranks: int) -> list[int]:
    """Return the lost ranks ascending, each once, or say which of them is no rank."""
    lost: set[int] = set()
    for rank in as_ranks(lost_ranks):
        if not 0 <= as_index(rank, -1) < num_ranks:
            raise InvalidInputError(f"lost_ranks names {shown(rank)}; it must name ranks from 0 to {num_ranks - 1}.")
        lost.add(as_index(rank))
    return sorted(lost)


def known_lost(current: Any, lost_ranks: Iterable[int], restored_ranks: Iterable[int] = ()) -> tuple[Any, ...]:
    """Return the lost ranks that are named, and those that a plan in force records, but for those that are restored.

    Raises
    ------
    InvalidInputError
        If a rank is restored that ``current`` does not record as lost, or is named as lost too.
    """
    named, restored = as_ranks(lost_ranks), as_ranks(restored_ranks, "restored_ranks")
    recorded = tuple(getattr(current, "lost_ranks", ()))
    for rank in restored:
        if as_index(rank, -1) not in recorded:
            raise InvalidInputError(
                f"restored_ranks names {shown(rank)}; what is in force records {numbered('rank', recorded)} as lost."
            )
        if as_index(rank) in [as_index(other, -1) for other in named]:
            raise InvalidInputError(f"lost_ranks and restored_ranks both name {shown(rank)}; leave it out of one.")
    return (*named, *(rank for rank in recorded if rank not in [as_index(other) for other in restored]))


def as_placement(value: Any, name: str = "current") -> Placement:
    """Return a placement, or the one of a plan, or say what to pass."""
    placement = getattr(value, "placement", value)
    if not isinstance(placement, Placement):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass a Placement, or a Plan for its placement.")
    return placement
