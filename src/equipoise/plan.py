"""A placement, its proof, and how it was found: what is kept, shown and handed on."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.arguments import as_index, as_instance, as_path, as_ranks, count, finite
from equipoise.certificate import Certificate, certify
from equipoise.decode.json import decode_json, parse_json
from equipoise.decode.source import reading
from equipoise.dispatch.shares import Shares
from equipoise.errors import EquipoiseError, FileFormatError, InvalidInputError, MissingDependencyError, listed, shown
from equipoise.files import write_atomically
from equipoise.joining import joined_fields, shares_of
from equipoise.latency import LatencyModel
from equipoise.load import LoadStatistics
from equipoise.metrics import Metrics
from equipoise.placement import Placement
from equipoise.plan_file import FORMAT, check_document, document_of, fields_in
from equipoise.problem import Cluster, PlacementProblem
from equipoise.provenance import Provenance
from equipoise.steps import Steps
from equipoise.summary import binding_layers, layer_columns, shape_of, summary_rows
from equipoise.timing import TimeCertificate

__all__ = ["FORMAT", "Plan", "Provenance"]

WORTH_ASKING = 0.99  # mean balancedness below which the summary says how to find the slots that reach it


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
    shares : Shares or None, default None
        What part of its expert's tokens each slot gets; None is even shares. Certificate and metrics are of these. With
        several batch sizes, those of the largest; see ``shares_for``.
    time : TimeCertificate or None, default None
        Of a plan in time: its latency model, and for each batch size the shares, the expected time of the busiest rank
        and a bound on it.
    steps : Steps or None, default None
        Of a load that is the sum of several steps: how many, and what the placement is worth step by step.
    lost_ranks : tuple of int, default ()
        Ranks that were gone when it was made, ascending; their slots are empty. A re-plan from this one leaves them
        empty, unless they are named as restored.

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
    shares: Shares | None = None
    time: TimeCertificate | None = None
    steps: Steps | None = None
    lost_ranks: tuple[int, ...] = ()

    @property
    def latency(self) -> LatencyModel | None:
        """The latency model that was planned with, if any."""
        return None if self.time is None else self.time.latency

    def shares_for(self, routed_per_step: float) -> Shares:
        """Return the shares for a batch size: those of the nearest that was planned for, by ratio.

        Of a plan that was not made in time, ``shares``, or even ones. ``routed_per_step`` is that of
        ``PlacementProblem``.

        Raises
        ------
        InvalidInputError
            If ``routed_per_step`` is no number above 0.
        """
        if self.time is not None:
            return self.time.shares[self.time.nearest(routed_per_step)]
        finite(routed_per_step, "routed_per_step")
        return shares_of(self)

    def named(self, layer_ids: Sequence[int]) -> Plan:
        """Return the same plan with the model's ids of its layers, which its file then has too.

        Raises
        ------
        InvalidInputError
            If there is not one id for each layer, or they do not ascend from 0 or more.
        """
        layers = self.placement.num_layers
        # LoadStatistics knows the rules of layer ids; they are the same here.
        if layer_ids is None:
            raise InvalidInputError(f"layer_ids is None; it must list the ids of {layers} layers.")
        given: Any = layer_ids
        ids = LoadStatistics(np.zeros((layers, 1)), layer_ids=given).layer_ids
        return dataclasses.replace(self, layer_ids=None if ids == tuple(range(layers)) else ids)

    def __post_init__(self) -> None:
        for field, kind in PARTS.items():
            as_instance(getattr(self, field), kind, field, f"a {kind.__name__}")
        if self.num_expert_groups is not None:
            count(self.num_expert_groups, "num_expert_groups")
        if self.steps is not None:
            as_instance(self.steps, Steps, "steps", "a Steps(number, mean_balancedness), or None")
        layers = (len(self.certificate.bound), len(self.metrics.mean_rank_load), self.placement.num_layers)
        if len(set(layers)) > 1:
            raise InvalidInputError(
                f"certificate, metrics and placement are of {listed(layers)} layers; pass those of one plan."
            )
        object.__setattr__(self, "lost_ranks", _checked_lost(self.lost_ranks, self.placement))
        if self.shares is not None:
            as_instance(self.shares, Shares, "shares", "Shares, or None for even ones")
            if self.shares.placement != self.placement:
                raise InvalidInputError("shares are of another placement; pass those of this plan's slots.")
        if self.time is not None:
            as_instance(self.time, TimeCertificate, "time", "a TimeCertificate, or None")
            if any(each.placement != self.placement for each in self.time.shares):
                raise InvalidInputError("time is of another placement; pass that of this plan's slots.")

    @classmethod
    def of(
        cls,
        problem: PlacementProblem,
        placement: Placement,
        provenance: Provenance,
        *,
        quick: bool = False,
        lost_ranks: Sequence[int] = (),
        shares: Shares | None = None,
    ) -> Plan:
        """Return the plan that ``placement`` is for ``problem``: checked, measured and with its proof.

        ``quick``, ``lost_ranks`` and ``shares`` are as in ``certify``.

        Raises
        ------
        InvalidPlacementError
            If the placement breaks a rule of the problem.
        """
        lost_ranks = as_ranks(lost_ranks)
        certificate = certify(problem, placement, quick=quick, lost_ranks=lost_ranks, shares=shares)
        mean = problem.load.sum(axis=1) / (problem.cluster.num_ranks - len(lost_ranks))
        metrics = Metrics(mean, certificate.max_rank_load, placement.num_duplicates)
        return cls(
            problem.cluster,
            problem.num_expert_groups,
            placement,
            certificate,
            metrics,
            provenance,
            shares=shares,
            steps=Steps.of(placement, problem.steps, shares),
            lost_ranks=tuple(sorted(set(lost_ranks))),
        )

    @classmethod
    def joined(cls, parts: Sequence[Plan], problem_digest: str) -> Plan:
        """Return the plan of all layers, whose problem has this digest, from those of consecutive ones."""
        if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, Plan) for part in parts):
            raise InvalidInputError(f"parts is {shown(parts)}; it must list plans of consecutive layers, at least one.")
        if len({(part.cluster, part.placement.num_logical_experts, *part.provenance.stages) for part in parts}) > 1:
            raise InvalidInputError("parts are plans for different clusters or models; pass those of one problem.")

        if any(part.time is not None for part in parts):
            raise InvalidInputError("parts are plans in time; plan their layers together.")
        return cls(**joined_fields(parts, problem_digest))

    def summary(self, balancedness: float = WORTH_ASKING) -> str:
        """Return a few lines for people: shape, balancedness, gap, what binds, what would lift it, how it was found.

        Where more than the mean binds and the mean balancedness is below the one given, the command is named that
        finds the fewest slots that reach it; ``equipoise.report.advise_slots`` does the same. Nothing is planned here.
        """
        return "\n".join(
            f"{name:<13} {text}" for name, text in summary_rows(self, finite(balancedness, "balancedness"))
        )

    def __repr__(self) -> str:
        told = f"mean balancedness {self.metrics.mean_balancedness:.4f}, mean gap {self.certificate.mean_gap:.4%}"
        if self.time is not None:
            times = ", ".join(f"{time:.1f}" for time in self.time.mean_max_rank_time)
            told = f"{times} us a layer, mean gap {self.time.gap.mean():.4%}"
        return f"<Plan: {shape_of(self)}, {told}>"

    def _repr_html_(self) -> str:
        """Return the summary as a table, for notebooks."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in summary_rows(self, WORTH_ASKING)
        )
        return f"<table>{rows}</table>"

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame with a row for each layer.

        Columns: ``layer`` (the model's id), ``balancedness``, ``mean_rank_load`` and ``max_rank_load`` (tokens),
        ``lower_bound`` (tokens), ``gap``, ``bound`` (its argument), ``num_duplicates``.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed.
        """
        try:
            pandas: Any = importlib.import_module("pandas")
        except ImportError as error:
            raise MissingDependencyError("pandas is not installed here. Run pip install pandas.") from error
        return pandas.DataFrame(layer_columns(self))

    @property
    def binding(self) -> dict[str, int]:
        """In how many layers each row of ``equipoise.bounds.LIFTED_BY`` is why the busiest rank cannot carry less.

        Layers without tokens are left out: nothing is to be gained there.

        >>> import equipoise as eq
        >>> eq.solve(eq.PlacementProblem([[9, 1, 1, 1], [1, 1, 1, 1]], eq.Cluster(4, 1))).binding
        {'the mean': 1, 'replication granularity': 1}
        """
        return binding_layers(self)

    def to_json(self) -> str:
        """Return the plan as JSON text: the same text for the same plan."""
        return json.dumps(document_of(self))

    def save(self, path: str | Path) -> None:
        """Write the plan to ``path`` as JSON, whole or not at all."""
        write_atomically(as_path(path), self.to_json() + "\n")

    @classmethod
    def from_json(cls, text: str, name: str = "plan") -> Plan:
        """Read a plan back; ``name`` says in an error where the text came from.

        All that can be known without the load is checked: see ``load``.

        Raises
        ------
        FileFormatError
            If the text is not a whole plan of this version, or contradicts itself.
        InvalidInputError
            If it is no text.
        """
        as_instance(text, str, "text", "JSON text, as to_json returns it")
        as_instance(name, str, "name", "a text")
        return cls._of(parse_json(text.encode(errors="surrogatepass"), name), name)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that ``save`` wrote.

        Raises
        ------
        FileFormatError
            If there is no such file, it is not a whole plan of this version, or it contradicts itself.
        InvalidInputError
            If ``path`` is none.

        Notes
        -----
        Any file may be given, a stranger's too. Checked is what can be known without the load: that every number is one
        and counts fit together; that every expert has a slot, and that expert groups lie whole on nodes, unless ranks
        are lost; that the loads of a layer can be those of one load; that no bound lies below the mean, which is one
        itself, or above what the busiest rank carries, and that a bound said to be the mean is it; that what
        ``summary`` prints can be printed.

        Not known is the load itself: whether the busiest rank carries what the plan says, and whether a bound above the
        mean was ever proved. ``equipoise.certificate.certify(problem, plan.placement)`` counts and proves both anew;
        that it is the same problem, ``plan.provenance.problem_digest == problem.digest`` says.
        """
        path = as_path(path)
        with reading(path):
            return cls._of(decode_json(path), str(path))

    @classmethod
    def _of(cls, document: Any, name: str) -> Plan:
        """Return the plan in a decoded document."""
        check_document(document, name)
        try:
            fields, layer_ids = fields_in(document)
            plan = cls(**fields)
            return plan if layer_ids is None else plan.named(layer_ids)
        except EquipoiseError as error:
            raise FileFormatError(f"{name} is not a valid plan: {str(error).rstrip('.')}.") from None


def _checked_lost(value: Any, placement: Placement) -> tuple[int, ...]:
    """Return lost ranks that ascend, are ranks and hold nothing, or say which of them does not."""
    slots = placement.physical_to_logical.reshape(placement.num_layers, placement.num_ranks, -1)
    held = slots.max(axis=(0, 2)) >= 0
    lost: list[int] = []
    for rank in as_ranks(value):
        number = as_index(rank, -1)
        if not (lost[-1] if lost else -1) < number < placement.num_ranks:
            raise InvalidInputError(
                f"lost_ranks is {shown(value)}; it must hold ranks from 0 to {placement.num_ranks - 1}, ascending."
            )
        if held[number]:
            raise InvalidInputError(f"lost_ranks names {number}, and the placement has experts there; leave it out.")
        lost.append(number)
    return tuple(lost)


PARTS: dict[str, type] = {
    "cluster": Cluster,
    "placement": Placement,
    "certificate": Certificate,
    "metrics": Metrics,
    "provenance": Provenance,
}
"""What a plan is made of."""
