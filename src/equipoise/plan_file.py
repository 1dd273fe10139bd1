"""The file of a plan: from a plan to a document, and from a document to what a plan is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from equipoise.decode.tables import whole_numbers
from equipoise.errors import FileFormatError, listed, shown
from equipoise.provenance import Provenance
from equipoise.saved import KEYS, fields_of, verified, verified_shares, verified_time
from equipoise.steps import Steps

if TYPE_CHECKING:
    from equipoise.plan import Plan

__all__ = ["FORMAT", "check_document", "document_of", "fields_in"]

FORMAT = "equipoise.plan"
VERSIONS = (1, 2)
"""Of plan files: 2 has shares, and is written only where there are some, so that older readers take what they can."""


def document_of(plan: Plan) -> dict[str, Any]:
    """Return what the file of a plan says: the same keys, in the same order, for the same plan."""
    ids = {} if plan.layer_ids is None else {"layer_ids": list(plan.layer_ids)}
    shares = {} if plan.shares is None else {"shares": plan.shares.values.tolist()}
    steps = {} if plan.steps is None else {"steps": dataclasses.asdict(plan.steps)}
    lost = {"lost_ranks": list(plan.lost_ranks)} if plan.lost_ranks else {}
    return {
        "format": FORMAT,
        "version": 2 if shares or plan.time is not None else 1,
        "cluster": dataclasses.asdict(plan.cluster),
        "num_expert_groups": plan.num_expert_groups,
        "num_logical_experts": plan.placement.num_logical_experts,
        **ids,
        **steps,
        **lost,
        "provenance": dataclasses.asdict(plan.provenance),
        "lower_bound": plan.certificate.lower_bound.tolist(),
        "bound": list(plan.certificate.bound),
        "max_rank_load": plan.metrics.max_rank_load.tolist(),
        "mean_rank_load": plan.metrics.mean_rank_load.tolist(),
        "physical_to_logical": plan.placement.physical_to_logical.tolist(),
        **shares,
        **({} if plan.time is None else {"time": plan.time.to_dict()}),
    }


def check_document(document: Any, name: str) -> None:
    """Insist that a decoded document is a plan of a version that is read here, and has the keys that all have."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FileFormatError(f'{name} is not a plan; a plan is a JSON object with "format": "{FORMAT}".')
    version = document.get("version")
    if type(version) is not int or version not in VERSIONS:
        raise FileFormatError(
            f"{name} is a plan of version {shown(version)}, and this equipoise reads versions {listed(VERSIONS)}; "
            "plan again, or install the equipoise that wrote it."
        )
    for key in KEYS:
        if key not in document:
            raise FileFormatError(f"{name} has no key {shown(key)}, which every plan has.")


def fields_in(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[int] | None]:
    """Return what a plan is made of by the names of its fields, each verified, and its layer ids, None if none."""
    names = ("cluster", "num_expert_groups", "placement", "certificate", "metrics")
    provenance = Provenance(**fields_of(document["provenance"], Provenance, "provenance"))
    fields: dict[str, Any] = {**dict(zip(names, verified(document), strict=True)), "provenance": provenance}
    if document["version"] > 1 and "shares" in document:
        fields["shares"] = verified_shares(document, fields["placement"])
    if document["version"] > 1 and "time" in document:
        fields["time"] = verified_time(document["time"], fields["placement"])
    if "steps" in document:
        fields["steps"] = Steps(**fields_of(document["steps"], Steps, "steps"))
    if "lost_ranks" in document:
        fields["lost_ranks"] = tuple(whole_numbers([document["lost_ranks"]], "lost_ranks")[0].tolist())
    if "layer_ids" not in document:
        return fields, None
    return fields, whole_numbers([document["layer_ids"]], "layer_ids")[0].tolist()
