"""From the plans of consecutive layers to the parts of the plan of all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.certificate import Certificate
from equipoise.dispatch.shares import Shares
from equipoise.metrics import Metrics
from equipoise.placement import Placement

if TYPE_CHECKING:
    from equipoise.plan import Plan

__all__ = ["joined_fields", "shares_of"]


def joined_fields(parts: Sequence[Plan], problem_digest: str) -> dict[str, Any]:
    """Return what the plan of all layers is made of, by the names of its fields; see ``Plan.joined``."""

    def every(array: Callable[[Plan], NDArray[Any]]) -> NDArray[Any]:
        """Return an array of all layers."""
        return np.concatenate([array(part) for part in parts])

    first = parts[0]
    table = every(lambda part: part.placement.physical_to_logical)
    placement = Placement(table, first.placement.num_ranks, first.placement.num_logical_experts)
    names = tuple(name for part in parts for name in part.certificate.bound)
    largest = every(lambda part: part.certificate.max_rank_load)
    stages = {stage: sum(part.provenance.stages[stage] for part in parts) for stage in first.provenance.stages}
    shares = None
    if any(part.shares is not None for part in parts):
        shares = Shares(every(lambda part: shares_of(part).values), placement)
    return {
        "cluster": first.cluster,
        "num_expert_groups": first.num_expert_groups,
        "placement": placement,
        "certificate": Certificate(every(lambda part: part.certificate.lower_bound), largest, names),
        "metrics": Metrics(every(lambda part: part.metrics.mean_rank_load), largest, placement.num_duplicates),
        "provenance": dataclasses.replace(
            first.provenance, parameters=_parameters_of_all(parts), stages=stages, problem_digest=problem_digest
        ),
        "shares": shares,
        "lost_ranks": first.lost_ranks,
    }


def shares_of(plan: Plan) -> Shares:
    """Return the shares of a plan, even ones where it has none of its own."""
    return Shares.even(plan.placement) if plan.shares is None else plan.shares


def _parameters_of_all(parts: Sequence[Plan]) -> dict[str, Any]:
    """Return the parameters of consecutive layers: those of the first, and what drift leaves, averaged over layers."""
    parameters = parts[0].provenance.parameters
    told: list[Any] = [part.provenance.parameters.get("connected") for part in parts]
    if not all(told):
        return parameters
    layers = [part.placement.num_layers for part in parts]
    mean = {name: round(float(np.average([each[name] for each in told], weights=layers)), 4) for name in told[0]}
    return {**parameters, "connected": mean}
