"""A placement, its proof, and how it was found: what is kept, shown and handed on."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.certificate import ROUNDING, Certificate
from equipoise.errors import EquipoiseError, FileFormatError, InvalidInputError
from equipoise.files import write_atomically
from equipoise.metrics import Metrics
from equipoise.placement import Placement
from equipoise.problem import Cluster, PlacementProblem, count

__all__ = ["LIFTED_BY", "Plan", "Provenance"]

FORMAT, VERSION = "equipoise.plan", 1

MEAN, SLOTS, GROUPS = "the mean", "replication granularity", "expert groups on nodes"
LIFTED_BY = {
    MEAN: "beyond the gap there is nothing to gain; only more ranks lift it",
    SLOTS: "replicas come in whole slots; more redundant experts lift it",
    GROUPS: "whole groups make one node too busy; planning globally lifts it",
}
"""What can hold the busiest rank up, in words, and what would lift it."""

HELD_BACK_BY = {
    "max_transfers": "by the limit of {:,} transfers in a layer",
    "max_transfers_total": "by the limit of {:,} transfers in all layers together",
    "stop_after": "by a search that ended after {:,} units",
}
"""Parameters that keep a plan from being as good as it could be, and what to say of them."""

_BINDING = {"mean": MEAN, "replica": SLOTS, "company": SLOTS, "threshold": SLOTS, "hottest": SLOTS, "grouping": GROUPS}
WORTH_ASKING = 0.99  # mean balancedness below which the summary says how many slots would reach it


@dataclass(frozen=True)
class Provenance:
    """How a plan was found, so that it can be found again.

    Attributes
    ----------
    strategy : str
    parameters : dict
        Every parameter of the strategy, defaults included.
    seed : int
    implementation : str
        The backend that ran; it does not change the plan.
    stages : dict of str to int
        How often each stage of the strategy ran or decided, summed over the layers.
    problem_digest : str
        SHA-256 of the load, the cluster and the groups.
    version : str
        Of equipoise.
    """

    strategy: str
    parameters: dict[str, Any]
    seed: int
    implementation: str
    stages: dict[str, int]
    problem_digest: str
    version: str

    def __post_init__(self) -> None:
        kinds = {"parameters": dict, "seed": int, "stages": dict}
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), kinds.get(field.name, str)
            if not isinstance(value, kind):
                raise InvalidInputError(f"{field.name} is {value!r}; it must be a {kind.__name__}.")
        for stage, number in self.stages.items():
            if not isinstance(number, int):
                raise InvalidInputError(f"stage {stage!r} is counted as {number!r}; it must be an int.")

    @classmethod
    def of(cls, strategy: Any, seed: int, implementation: str, stages: dict[str, int], digest: str) -> Provenance:
        """Describe a run of ``strategy``, a row of ``equipoise.strategies``."""
        from equipoise import __version__

        return cls(strategy.name, dataclasses.asdict(strategy), seed, implementation, stages, digest, __version__)


@dataclass(frozen=True, eq=False)
class Plan:
    """What ``solve`` returns.

    Attributes
    ----------
    cluster : Cluster
    num_expert_groups : int or None
    placement : Placement
    certificate : Certificate
    metrics : Metrics
    provenance : Provenance
    problem : PlacementProblem or None, default None
        What was asked, where it is still known: it is not saved, and lets ``summary`` say how many slots it would take.

    Examples
    --------
    >>> import equipoise as eq
    >>> plan = eq.solve(eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(num_ranks=2, slots_per_rank=3)))
    >>> Plan.from_json(plan.to_json()).placement == plan.placement
    True
    """

    cluster: Cluster
    num_expert_groups: int | None
    placement: Placement
    certificate: Certificate
    metrics: Metrics
    provenance: Provenance
    problem: PlacementProblem | None = dataclasses.field(default=None, repr=False)

    def summary(self, balancedness: float = WORTH_ASKING) -> str:
        """Return a few lines for people: shape, balancedness, gap, what binds, what would lift it, how it was found.

        Where replication granularity binds and the mean balancedness is below the one given, the fewest slots that
        reach it are looked for, by planning anew with more and more slots: that takes as long as a few plans. A plan
        that was read back no longer knows its load, and names the command that finds them.
        """
        placement, metrics, certificate, how = self.placement, self.metrics, self.certificate, self.provenance
        cluster = self.cluster
        shape = (
            f"{placement.num_layers} layers x {placement.num_logical_experts} experts -> {cluster.num_slots} slots on "
            f"{cluster.num_ranks} ranks ({cluster.slots_per_rank} a rank)"
        )
        if cluster.num_nodes > 1:
            shape += f", {cluster.num_nodes} nodes"
        if self.num_expert_groups is not None:
            shape += f", {self.num_expert_groups} expert groups"
        duplicates = int(metrics.num_duplicates.sum())
        found = ", ".join(f"{name} {number:,}" for name, number in how.stages.items() if number)
        rows = (
            ("plan", shape),
            ("balancedness", f"mean {metrics.mean_balancedness:.4f}, worst layer {metrics.worst_balancedness:.4f}"),
            ("gap to bound", f"mean {certificate.mean_gap:.4%}, worst layer {certificate.max_gap:.4%}"),
            *(("bound by", line) for line in self._binding()),
            *(("held back", line) for line in self._holding_back()),
            *(("to reach", line) for line in self._to_reach(balancedness)),
            ("duplicates", f"{duplicates or 'no'} rank{'s hold' if duplicates != 1 else ' holds'} an expert twice"),
            ("found by", f"{how.strategy}, seed {how.seed}, {how.implementation}" + (f"; {found}" if found else "")),
        )
        return "\n".join(f"{name:<13} {text}" for name, text in rows)

    @property
    def binding(self) -> dict[str, int]:
        """In how many layers each row of ``LIFTED_BY`` is the reason why the busiest rank cannot carry less.

        Layers without tokens are left out: nothing is to be gained there.

        >>> import equipoise as eq
        >>> eq.solve(eq.PlacementProblem([[9, 1, 1, 1], [1, 1, 1, 1]], eq.Cluster(4, 1))).binding
        {'the mean': 1, 'replication granularity': 1}
        """
        names = [
            _BINDING.get(bound, bound)
            for bound, lower in zip(self.certificate.bound, self.certificate.lower_bound, strict=True)
            if lower > 0
        ]
        order = sorted(dict.fromkeys(names), key=lambda name: [*LIFTED_BY, name].index(name))
        return {name: names.count(name) for name in order}

    def _binding(self) -> list[str]:
        lines = [
            f"{name} in {number} {'layer' if number == 1 else 'layers'}"
            + (f": {LIFTED_BY[name]}" if name in LIFTED_BY else "")
            for name, number in self.binding.items()
        ]
        return lines or ["nothing: no layer has tokens"]

    def _holding_back(self) -> list[str]:
        """Return the limits that were set for this plan: the gap may be owed to them."""
        limits = ((words, self.provenance.parameters.get(name)) for name, words in HELD_BACK_BY.items())
        return [words.format(limit) for words, limit in limits if limit is not None]

    def _to_reach(self, balancedness: float) -> list[str]:
        """Return the line that says how many slots a mean balancedness takes, where more than the mean binds."""
        if not {SLOTS, GROUPS} & set(self.binding) or self.metrics.mean_balancedness >= balancedness:
            return []
        target, cluster = f"mean balancedness {balancedness:g}", self.cluster
        if self.problem is None:
            groups = f" --nodes {cluster.num_nodes} --groups {self.num_expert_groups}" if self.num_expert_groups else ""
            return [f"{target}: equipoise slots LOADS --ranks {cluster.num_ranks}{groups} says how many slots it takes"]
        from equipoise.capacity import slots_for

        capacity = slots_for(self.problem, balancedness)
        answer = capacity.mean
        if answer.never:
            return [f"{target}: no number of slots is enough, expert groups on nodes prevent it"]
        if answer.found is None:
            return [f"{target}: not found with up to {capacity.points[-1].num_slots:,} slots"]
        redundant = answer.found - self.placement.num_logical_experts
        line = f"{target}: {answer.found:,} slots, {redundant:,} of them redundant"
        if answer.found <= cluster.num_slots:
            line += ", with strategy joint-descent"
        if answer.undecided:
            line += f"; {', '.join(f'{number:,}' for number in answer.undecided)} may do"
        return [line]

    def to_json(self) -> str:
        """Return the plan as JSON text: the same text for the same plan."""
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "cluster": dataclasses.asdict(self.cluster),
                "num_expert_groups": self.num_expert_groups,
                "num_logical_experts": self.placement.num_logical_experts,
                "provenance": dataclasses.asdict(self.provenance),
                "lower_bound": self.certificate.lower_bound.tolist(),
                "bound": list(self.certificate.bound),
                "max_rank_load": self.metrics.max_rank_load.tolist(),
                "mean_rank_load": self.metrics.mean_rank_load.tolist(),
                "physical_to_logical": self.placement.physical_to_logical.tolist(),
            }
        )

    def save(self, path: str | Path) -> None:
        """Write the plan to ``path`` as JSON, whole or not at all."""
        write_atomically(path, self.to_json() + "\n")

    @classmethod
    def from_json(cls, text: str, name: str = "plan") -> Plan:
        """Read a plan back; ``name`` says in an error where the text came from.

        Raises
        ------
        FileFormatError
            If the text is not a whole plan of this version, or contradicts itself.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise FileFormatError(f"{name} is not whole JSON: {error}.") from None
        except RecursionError:
            raise FileFormatError(f"{name} nests lists too deeply for a plan.") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise FileFormatError(f'{name} is not a plan; a plan is a JSON object with "format": "{FORMAT}".')
        if data.get("version") != VERSION:
            raise FileFormatError(
                f"{name} is a plan of version {data.get('version')!r}, and this equipoise reads version {VERSION}; "
                "plan again, or install the equipoise that wrote it."
            )
        try:
            cluster = Cluster(**data["cluster"])
            placement = Placement(data["physical_to_logical"], cluster.num_ranks, data["num_logical_experts"])
            largest = np.array(data["max_rank_load"], dtype=np.float64)
            certificate = Certificate(np.array(data["lower_bound"], dtype=np.float64), largest, tuple(data["bound"]))
            mean = np.array(data["mean_rank_load"], dtype=np.float64)
            if not len(mean) == len(largest) == placement.num_layers or placement.num_slots != cluster.num_slots:
                raise FileFormatError("its layers or slots do not match its cluster")
            if not (np.isfinite(largest) & (mean >= 0) & (mean <= largest * (1 + ROUNDING))).all():
                raise FileFormatError("a mean_rank_load is negative or above its max_rank_load")
            if not all(isinstance(bound, str) for bound in certificate.bound):
                raise FileFormatError("a bound is not a name")
            _check_complete(placement)
            groups = data["num_expert_groups"]
            if groups is not None and placement.num_logical_experts % count(groups, "num_expert_groups"):
                raise FileFormatError(f"{groups} groups do not divide its {placement.num_logical_experts} experts")
            metrics = Metrics(mean, largest, placement.num_duplicates)
            provenance = Provenance(**data["provenance"])
            return cls(cluster, groups, placement, certificate, metrics, provenance)
        except KeyError as error:
            raise FileFormatError(f"{name} has no key {error}, which every plan has.") from None
        except (EquipoiseError, TypeError, ValueError) as error:
            raise FileFormatError(f"{name} is not a valid plan: {str(error).rstrip('.')}.") from None

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that ``save`` wrote.

        Raises
        ------
        FileFormatError
            If there is no such file, or it is not a whole plan of this version.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise FileFormatError(f"{path} is not text; a plan is a JSON file that Plan.save wrote.") from None
        except OSError as error:
            raise FileFormatError(f"{path} cannot be read: {error.strerror}.") from None
        return cls.from_json(text, name=str(path))


def _check_complete(placement: Placement) -> None:
    """Insist that every expert has a slot, as in every plan that was made; slots of lost ranks may be empty."""
    if (placement.replica_count == 0).any():
        layer, expert = (int(i) for i in np.argwhere(placement.replica_count == 0)[0])
        raise FileFormatError(f"layer {layer} has no slot for expert {expert}")
