"""The placement in force, from a plan or any engine's file, and the problem of the next one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from equipoise.errors import EquipoiseError, FileFormatError, InvalidInputError, numbered

if TYPE_CHECKING:
    from equipoise.dispatch import Shares
    from equipoise.load import LoadStatistics
    from equipoise.placement import Placement
    from equipoise.plan import Plan
    from equipoise.problem import PlacementProblem

__all__ = ["InForce", "read_in_force"]


@dataclass(frozen=True)
class InForce:
    """What a file says is in force: nodes and expert groups are those of a plan; 1 and None elsewhere."""

    placement: Placement
    layer_ids: tuple[int, ...]
    num_nodes: int
    num_expert_groups: int | None
    source: str
    lost_ranks: tuple[int, ...] = ()
    shares: Shares | None = None
    plan: Plan | None = None

    def problem(
        self, load: LoadStatistics, ranks: int | None, slots: int | None, nodes: int | None, groups: int | None
    ) -> PlacementProblem:
        """Return what is asked of the next placement; None stands for what is in force.

        Its layers have the ids of the load where what is in force only counts them.
        """
        from equipoise.problem import Cluster, PlacementProblem

        ranks = self.placement.num_ranks if ranks is None else ranks
        slots = self.placement.slots_per_rank * ranks if slots is None else slots
        cluster = Cluster.from_slots(ranks, slots, self.num_nodes if nodes is None else nodes)
        return PlacementProblem(self.met(load), cluster, self.num_expert_groups if groups is None else groups)

    def named(self, load: LoadStatistics) -> tuple[int, ...]:
        """Return the ids of the layers in force; those of the load where a file only counts as many layers."""
        return load.layer_ids if self._counts and len(load.layer_ids) == len(self.layer_ids) else self.layer_ids

    @property
    def _counts(self) -> bool:
        """Whether layers are counted from 0, and not named by their ids."""
        return self.layer_ids == tuple(range(len(self.layer_ids)))

    def met(self, load: LoadStatistics) -> LoadStatistics:
        """Return the load of the layers in force, found by their ids; in their order where one of the two has none.

        A file that only counts its layers may count those with tokens alone.
        """
        import dataclasses

        import numpy as np

        ids = load.layer_ids
        if len(ids) == len(self.layer_ids) and tuple(range(len(ids))) in (ids, self.layer_ids):
            return dataclasses.replace(load, layer_ids=self.named(load))
        if ids == self.layer_ids:
            return load
        row_of = {layer: row for row, layer in enumerate(ids)}
        lost = [layer for layer in ids if layer not in self.layer_ids and row_of[layer] not in load.empty_layers]
        if lost and self._counts and load.num_layers - len(load.empty_layers) == len(self.layer_ids):
            return _without_empty(load)
        if lost:
            raise InvalidInputError(
                f"{load.source} has tokens for layer {lost[0]}, which {self.source} does not place; it places "
                f"{numbered('layer', self.layer_ids)}."
            )
        tokens = np.zeros((load.num_windows, len(self.layer_ids), load.num_logical_experts))
        unknown = []
        for row, layer in enumerate(self.layer_ids):
            if layer in row_of:
                tokens[:, row] = load.tokens_per_expert[:, row_of[layer]]
            else:
                unknown.append(layer)
        if unknown:
            stay = "it stays" if len(unknown) == 1 else "they stay"
            print(f"note: {load.source} says nothing of {numbered('layer', unknown)}; {stay}.", file=sys.stderr)
        return dataclasses.replace(load, tokens_per_expert=tokens, layer_ids=self.layer_ids)


def _without_empty(load: LoadStatistics) -> LoadStatistics:
    """Return the layers with tokens of a load."""
    import dataclasses

    keep = [row for row in range(load.num_layers) if row not in load.empty_layers]
    ids = tuple(load.layer_ids[row] for row in keep)
    return dataclasses.replace(load, tokens_per_expert=load.tokens_per_expert[:, keep], layer_ids=ids)


def read_in_force(path: Path, current_ranks: int | None, ranks: int | None, option: str = "--current-ranks") -> InForce:
    """Return the placement in a file; ``current_ranks``, else ``ranks``, is on how many ranks it is if it does not say.

    Ranks that hold nothing are lost. ``option`` is what ``current_ranks`` was named with.

    Raises
    ------
    FileFormatError
        If it holds none.
    InvalidInputError
        If nobody says on how many ranks it is, or the file says another number than ``current_ranks``.
    """
    from equipoise.dispatch import Shares
    from equipoise.engines.formats import read_placement, read_plan
    from equipoise.placement import Placement

    plan = read_plan(path)
    if plan is not None:
        if current_ranks not in (None, plan.cluster.num_ranks):
            raise InvalidInputError(f"{path} is for {plan.cluster.num_ranks} ranks; leave out {option}.")
        layers = plan.placement.num_layers
        ids = tuple(range(layers)) if plan.layer_ids is None else plan.layer_ids
        nodes, groups = plan.cluster.num_nodes, plan.num_expert_groups
        return InForce(plan.placement, ids, nodes, groups, str(path), plan.lost_ranks, plan.shares, plan)
    held = read_placement(path)
    if held is None:
        raise FileFormatError(f"{path} {_load_in(path)}; name a plan, or a map of an engine.")
    if current_ranks is not None and held.num_ranks not in (None, current_ranks):
        raise InvalidInputError(f"{path} is for {held.num_ranks} ranks; leave out {option}.")
    on = next((number for number in (held.num_ranks, current_ranks, ranks) if number is not None), None)
    if on is None:
        raise InvalidInputError(f"{path} does not say on how many ranks its slots are; name them with {option}.")
    placement = Placement(held.physical_to_logical, on, held.num_logical_experts)
    lost = held.with_ranks(on).empty_ranks
    shares = None if held.shares is None else Shares(held.shares, placement)
    return InForce(placement, held.layer_ids, 1, None, str(path), lost, shares)


def _load_in(path: Path) -> str:
    """Say what load a file holds, or that it holds nothing known."""
    from equipoise.load import read_load

    try:
        load = read_load(path)
    except EquipoiseError:
        return "holds no placement"
    return f"is a load of {load.num_layers} layers x {load.num_logical_experts} experts and no placement"
