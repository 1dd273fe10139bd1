"""What a plan says of itself, in lines and layer by layer: each function looks at a plan and plans nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from equipoise.dispatch.connected import count_components, fewest_components
from equipoise.dispatch.shares import Shares
from equipoise.errors import listed
from equipoise.provenance import HELD_BACK_BY

if TYPE_CHECKING:
    from equipoise.plan import Plan

__all__ = ["binding_layers", "layer_columns", "shape_of", "summary_rows"]


def shape_of(plan: Plan) -> str:
    """Return how many layers, experts, slots and ranks, for people."""
    placement, cluster = plan.placement, plan.cluster
    return (
        f"{placement.num_layers} layers x {placement.num_logical_experts} experts -> {cluster.num_slots} slots on "
        f"{cluster.num_ranks} ranks"
    )


def summary_rows(plan: Plan, balancedness: float) -> list[tuple[str, str]]:
    """Return what ``summary`` says, by what it is about.

    A plan in time says how far its time is from a bound; how far its tokens are from one was not asked.
    """
    metrics, certificate, how, cluster = plan.metrics, plan.certificate, plan.provenance, plan.cluster
    shape = f"{shape_of(plan)} ({cluster.slots_per_rank} a rank)"
    if cluster.num_nodes > 1:
        shape += f", {cluster.num_nodes} nodes"
    if plan.num_expert_groups is not None:
        shape += f", {plan.num_expert_groups} expert groups"
    in_tokens = plan.time is None or plan.time.latency.is_proportional
    balanced = f"mean {metrics.mean_balancedness:.4f}, worst layer {metrics.worst_balancedness:.4f}"
    if not in_tokens:
        balanced += "; of tokens, in the largest batch: what was minimised is time"
    duplicates = int(metrics.num_duplicates.sum())
    found = ", ".join(f"{name} {number:,}" for name, number in how.stages.items() if number)
    return [
        ("plan", shape),
        ("balancedness", balanced),
        *([("steps", str(plan.steps))] if plan.steps else []),
        *([("gap to bound", f"mean {certificate.mean_gap:.4%}, worst layer {certificate.max_gap:.4%}")] * in_tokens),
        *(("next window", line) for line in _foreseen(plan)),
        *([("bound by", line) for line in _binding(plan)] * in_tokens),
        *(("time", line) for line in ([] if plan.time is None else plan.time.describe())),
        *(("time model", line) for line in ([] if plan.time is None else [plan.time.latency.describe()])),
        *([("lost", _named_ranks(plan.lost_ranks))] if plan.lost_ranks else []),
        *(("held back", line) for line in _holding_back(plan)),
        *(("shares", line) for line in _sharing(plan)),
        *(("connected", line) for line in _connecting(plan)),
        *([("to reach", line) for line in _to_reach(plan, balancedness)] * in_tokens),
        ("duplicates", f"{duplicates or 'no'} rank{'s hold' if duplicates != 1 else ' holds'} an expert twice"),
        ("found by", f"{how.strategy}, seed {how.seed}, {how.implementation}" + (f"; {found}" if found else "")),
    ]


def binding_layers(plan: Plan) -> dict[str, int]:
    """Return in how many layers each row of ``LIFTED_BY`` binds; see ``Plan.binding``."""
    from equipoise.bounds import BOUNDS, LIFTED_BY

    names = [
        BOUNDS[bound].held_up_by if bound in BOUNDS else bound
        for bound, lower in zip(plan.certificate.bound, plan.certificate.lower_bound, strict=True)
        if lower > 0
    ]
    order = sorted(dict.fromkeys(names), key=lambda name: [*LIFTED_BY, name].index(name))
    return {name: names.count(name) for name in order}


def layer_columns(plan: Plan) -> dict[str, Any]:
    """Return what is known of each layer, by the names of the columns of ``Plan.to_pandas``."""
    metrics, certificate = plan.metrics, plan.certificate
    ids = range(plan.placement.num_layers) if plan.layer_ids is None else plan.layer_ids
    return {
        "layer": list(ids),
        "balancedness": metrics.balancedness,
        "mean_rank_load": metrics.mean_rank_load,
        "max_rank_load": metrics.max_rank_load,
        "lower_bound": certificate.lower_bound,
        "gap": certificate.gap,
        "bound": list(certificate.bound),
        "num_duplicates": metrics.num_duplicates,
    }


def _binding(plan: Plan) -> list[str]:
    from equipoise.bounds import LIFTED_BY

    lines = [
        f"{name} in {number} {'layer' if number == 1 else 'layers'}"
        + (f": {LIFTED_BY[name]}" if name in LIFTED_BY else "")
        for name, number in plan.binding.items()
    ]
    return lines or ["nothing: no layer has tokens"]


def _foreseen(plan: Plan) -> list[str]:
    """Return what was forecast, from what, and how balanced the next window is expected to be."""
    said = plan.provenance.parameters.get("forecast")
    if said is None:
        return []
    windows = said.get("num_windows", 0)
    made = f"what is above is on the load forecast from {windows:,} window{'' if windows == 1 else 's'}"
    if "expected_balancedness" not in said:
        return [f"{made}; too little is known of errors to plan against them"]
    tested, layers = said.get("tested_windows", 0), said.get("tested_layers", 0)
    return [
        f"balancedness {said['expected_balancedness']:.4f} expected; {made}",
        f"back-tested on {tested:,} past window{'' if tested == 1 else 's'}, each planned for from those before it, "
        f"in {layers:,} layer{'' if layers == 1 else 's'}",
    ]


def _holding_back(plan: Plan) -> list[str]:
    """Return the limits that were set for this plan: the gap may be owed to them."""
    limits = ((words, plan.provenance.parameters.get(name)) for name, (words, _) in HELD_BACK_BY.items())
    return [words.format(limit) for words, limit in limits if limit is not None]


def _sharing(plan: Plan) -> list[str]:
    """Return how far shares are from even, and how many replicas are dormant, where there are shares."""
    if plan.shares is None:
        return []
    uneven = (np.abs(plan.shares.values - Shares.even(plan.placement).values) > 0.005).sum()
    return [f"{uneven:,} uneven, {int(plan.shares.num_dormant.sum()):,} replicas dormant, in all layers"]


def _connecting(plan: Plan) -> list[str]:
    """Return how many components the ranks fall into and what that gives, where they were to be connected."""
    told = plan.provenance.parameters.get("connected")
    if not told:
        return []
    found, fewest = count_components(plan.placement), fewest_components(plan.placement)
    line = f"{found.mean():.2f} components of ranks that share experts, worst layer {found.max()}"
    if fewest.max() > 1:
        spare = plan.cluster.num_slots - plan.placement.num_logical_experts
        line += f"; {spare} redundant experts cannot join {plan.cluster.num_ranks} ranks: at least {fewest.max()}"
    return [
        line,
        f"after {told['drift']:.0%} drift, with no transfers: balancedness {told['best']:.4f} with the best "
        f"shares, {told['even']:.4f} with even ones",
    ]


def _to_reach(plan: Plan, balancedness: float) -> list[str]:
    """Return the line that says how to find the slots for a mean balancedness, where more than the mean binds."""
    from equipoise.bounds import GROUPS, SLOTS

    if not {SLOTS, GROUPS} & set(plan.binding) or plan.metrics.mean_balancedness >= balancedness:
        return []
    cluster, groups = plan.cluster, ""
    if plan.num_expert_groups:
        groups = f" --nodes {cluster.num_nodes} --groups {plan.num_expert_groups}"
    command = f"equipoise slots LOADS --ranks {cluster.num_ranks}{groups}"
    return [f"mean balancedness {balancedness:g}: {command} says how many slots it takes"]


def _named_ranks(ranks: Sequence[int]) -> str:
    return f"{'ranks' if len(ranks) > 1 else 'rank'} {listed(ranks)}: left empty, by a re-plan from this one too"
