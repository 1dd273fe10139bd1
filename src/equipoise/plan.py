"""A placement, its proof, and how it was found: what is kept, shown and handed on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.certificate import ROUNDING, Certificate, certify
from equipoise.errors import EquipoiseError, FileFormatError, InvalidInputError
from equipoise.files import write_atomically
from equipoise.load import LoadStatistics
from equipoise.metrics import Metrics
from equipoise.placement import Placement
from equipoise.problem import Cluster, PlacementProblem, count

__all__ = ["Plan", "Provenance"]

FORMAT, VERSION = "equipoise.plan", 1

HELD_BACK_BY = {
    "max_transfers": "by the limit of {:,} transfers in a layer",
    "max_transfers_total": "by the limit of {:,} transfers in all layers together",
    "min_gain": "by layers that stay where a plan gains less than {:.2%}",
    "max_layers": "by the limit of {:,} layers that change",
    "stop_after": "by a search that was ended before it was done",
}
"""Parameters that keep a plan from being as good as it could be, and what to say of them."""

WORTH_ASKING = 0.99  # mean balancedness below which the summary says how to find the slots that reach it


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
    layer_ids : tuple of int or None, default None
        The model's own id of each layer; None where layers count from 0. See ``named``.

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
    layer_ids: tuple[int, ...] | None = None

    def named(self, layer_ids: Sequence[int]) -> Plan:
        """Return the same plan with the model's ids of its layers, which its file then has too.

        Raises
        ------
        InvalidInputError
            If there is not one id for each layer, or they do not ascend from 0 or more.
        """
        layers = self.placement.num_layers
        # LoadStatistics knows the rules of layer ids; they are the same here.
        ids = LoadStatistics(np.zeros((layers, 1)), layer_ids=tuple(layer_ids)).layer_ids
        return dataclasses.replace(self, layer_ids=None if ids == tuple(range(layers)) else ids)

    @classmethod
    def of(
        cls,
        problem: PlacementProblem,
        placement: Placement,
        provenance: Provenance,
        *,
        quick: bool = False,
        lost_ranks: Sequence[int] = (),
    ) -> Plan:
        """Return the plan that ``placement`` is for ``problem``: checked, measured and with its proof.

        ``quick`` and ``lost_ranks`` are as in ``certify``.

        Raises
        ------
        InvalidPlacementError
            If the placement breaks a rule of the problem.
        """
        certificate = certify(problem, placement, quick=quick, lost_ranks=lost_ranks)
        mean = problem.load.sum(axis=1) / (problem.cluster.num_ranks - len(lost_ranks))
        metrics = Metrics(mean, certificate.max_rank_load, placement.num_duplicates)
        return cls(problem.cluster, problem.num_expert_groups, placement, certificate, metrics, provenance)

    @classmethod
    def joined(cls, parts: Sequence[Plan], problem_digest: str) -> Plan:
        """Return the plan of all layers, whose problem has this digest, from those of consecutive ones."""
        first = parts[0]

        def every(array: Callable[[Plan], NDArray[Any]]) -> NDArray[Any]:
            return np.concatenate([array(part) for part in parts])

        table = every(lambda part: part.placement.physical_to_logical)
        placement = Placement(table, first.placement.num_ranks, first.placement.num_logical_experts)
        names = tuple(name for part in parts for name in part.certificate.bound)
        largest = every(lambda part: part.certificate.max_rank_load)
        certificate = Certificate(every(lambda part: part.certificate.lower_bound), largest, names)
        metrics = Metrics(every(lambda part: part.metrics.mean_rank_load), largest, placement.num_duplicates)
        stages = {stage: sum(part.provenance.stages[stage] for part in parts) for stage in first.provenance.stages}
        provenance = dataclasses.replace(first.provenance, stages=stages, problem_digest=problem_digest)
        return cls(first.cluster, first.num_expert_groups, placement, certificate, metrics, provenance)

    def summary(self, balancedness: float = WORTH_ASKING) -> str:
        """Return a few lines for people: shape, balancedness, gap, what binds, what would lift it, how it was found.

        Where more than the mean binds and the mean balancedness is below the one given, the command is named that
        finds the fewest slots that reach it; ``equipoise.report.advise_slots`` does the same. Nothing is planned here.
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
        """In how many layers each row of ``equipoise.bounds.LIFTED_BY`` is why the busiest rank cannot carry less.

        Layers without tokens are left out: nothing is to be gained there.

        >>> import equipoise as eq
        >>> eq.solve(eq.PlacementProblem([[9, 1, 1, 1], [1, 1, 1, 1]], eq.Cluster(4, 1))).binding
        {'the mean': 1, 'replication granularity': 1}
        """
        from equipoise.bounds import BOUNDS, LIFTED_BY

        names = [
            BOUNDS[bound].held_up_by if bound in BOUNDS else bound
            for bound, lower in zip(self.certificate.bound, self.certificate.lower_bound, strict=True)
            if lower > 0
        ]
        order = sorted(dict.fromkeys(names), key=lambda name: [*LIFTED_BY, name].index(name))
        return {name: names.count(name) for name in order}

    def _binding(self) -> list[str]:
        from equipoise.bounds import LIFTED_BY

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
        """Return the line that says how to find the slots for a mean balancedness, where more than the mean binds."""
        from equipoise.bounds import GROUPS, SLOTS

        if not {SLOTS, GROUPS} & set(self.binding) or self.metrics.mean_balancedness >= balancedness:
            return []
        cluster, groups = self.cluster, ""
        if self.num_expert_groups:
            groups = f" --nodes {cluster.num_nodes} --groups {self.num_expert_groups}"
        command = f"equipoise slots LOADS --ranks {cluster.num_ranks}{groups}"
        return [f"mean balancedness {balancedness:g}: {command} says how many slots it takes"]

    def to_json(self) -> str:
        """Return the plan as JSON text: the same text for the same plan."""
        ids = {} if self.layer_ids is None else {"layer_ids": list(self.layer_ids)}
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "cluster": dataclasses.asdict(self.cluster),
                "num_expert_groups": self.num_expert_groups,
                "num_logical_experts": self.placement.num_logical_experts,
                **ids,
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
            plan = cls(cluster, groups, placement, certificate, metrics, provenance)
            return plan.named(data["layer_ids"]) if "layer_ids" in data else plan
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
