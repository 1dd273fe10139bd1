"""What a saved plan says, held to all that can be known without its load.

A plan comes back from a file that anyone may have written. So each value is of its kind and each count fits the others;
every expert has a slot, and expert groups lie whole on nodes, unless ranks are lost; no bound lies below the mean,
which is one itself, or above what the busiest rank carries, and one that is said to be the mean is it.

What the loads were stands in no plan. So nothing here knows whether the busiest rank carries what the plan says, or
whether a bound above the mean was ever proved: ``equipoise.certificate.certify`` does, given the problem.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import count
from equipoise.arrays import CheckedLoad
from equipoise.certificate import ROUNDING, Certificate
from equipoise.checker import check_placement
from equipoise.decode.tables import number_rows, numbers, whole_numbers
from equipoise.dispatch.shares import Shares
from equipoise.errors import FileFormatError, listed, shown
from equipoise.latency import LatencyModel
from equipoise.metrics import Metrics
from equipoise.placement import Placement
from equipoise.problem import Cluster, PlacementProblem
from equipoise.timing import TimeCertificate

__all__ = ["KEYS", "fields_of", "verified", "verified_shares", "verified_time"]

Floats = NDArray[np.float64]
TINY = float(np.finfo(np.float64).tiny)  # below that, floats lose their digits

KEYS = (
    "cluster", "num_expert_groups", "num_logical_experts", "provenance", "lower_bound", "bound", "max_rank_load",
    "mean_rank_load", "physical_to_logical",
)  # fmt: skip


def verified(document: Mapping[str, Any]) -> tuple[Cluster, int | None, Placement, Certificate, Metrics]:
    """Return what a plan says of its placement, or raise an ``InvalidInputError`` that says what is wrong with it."""
    cluster = Cluster(**fields_of(document["cluster"], Cluster, "cluster"))
    groups = document["num_expert_groups"]
    groups = None if groups is None else count(groups, "num_expert_groups")
    table = whole_numbers(document["physical_to_logical"], "physical_to_logical")
    placement = Placement(table, cluster.num_ranks, document["num_logical_experts"])
    lower, largest, mean = (numbers(document[key], key) for key in ("lower_bound", "max_rank_load", "mean_rank_load"))
    names = document["bound"]
    if not isinstance(names, list) or not len(lower) == len(largest) == len(mean) == len(names) == len(table):
        raise FileFormatError(
            f"lower_bound, max_rank_load, mean_rank_load and bound are not of {len(table)} layers, as its placement is"
        )
    _check_loads(lower, largest, mean, cluster)
    _check_bounds(names, lower, mean, _check_placement(placement, cluster, groups))
    metrics = Metrics(mean, largest, placement.num_duplicates)
    return cluster, groups, placement, Certificate(lower, largest, tuple(names)), metrics


def verified_shares(document: Mapping[str, Any], placement: Placement) -> Shares:
    """Return the shares of a plan whose other values are ``verified``, with a bound that holds for such shares."""
    from equipoise.bounds import BOUNDS

    shares = Shares(number_rows(document["shares"], "shares"), placement)
    for name in document["bound"]:
        if not BOUNDS[name].any_shares and not shares.is_even:
            raise FileFormatError(
                f"bound names {shown(name)}, which holds for even shares only, and this plan has others"
            )
    return shares


def verified_time(value: Any, placement: Placement) -> TimeCertificate:
    """Return what a plan says of its time, held to what can be known without the load."""
    fields = fields_of(value, TimeCertificate, "time")
    latency = LatencyModel(**fields_of(fields["latency"], LatencyModel, "latency"))
    if not isinstance(fields["shares"], list):
        raise FileFormatError(f"shares of time is {shown(fields['shares'])}; it must list tables, one a batch size")
    shares = tuple(Shares(number_rows(table, "shares"), placement) for table in fields["shares"])
    for smaller, larger in pairwise(shares):
        if ((smaller.values > 0) & (larger.values == 0)).any():
            raise FileFormatError("a replica is active in a batch and dormant in a larger one")
    times, bounds = (number_rows(fields[key], key) for key in ("max_rank_time", "lower_bound"))
    sizes = tuple(numbers(fields["routed_per_step"], "routed_per_step").tolist())
    if (bounds < latency.fixed * (1 - ROUNDING)).any():
        raise FileFormatError(f"a lower_bound of time is below {latency.fixed}, which every rank takes")
    return TimeCertificate(latency, sizes, shares, times, bounds)


def fields_of(value: Any, kind: type, name: str) -> dict[str, Any]:
    """Return an object of a document that has the fields of ``kind`` and no other, or say what it has instead."""
    known = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(value, dict) or set(value) != set(known):
        found = f"has {listed(value)}" if isinstance(value, dict) else f"is {shown(value)}"
        raise FileFormatError(f"{name} {found}; it must be an object with {listed(known)}.")
    return value


def _check_placement(placement: Placement, cluster: Cluster, groups: int | None) -> PlacementProblem:
    """Insist that the placement is one of this cluster that keeps groups whole; return a problem that it answers.

    The load of that problem is none: which it was makes no difference to where an expert may be.
    """
    load = CheckedLoad(np.ones((placement.num_layers, placement.num_logical_experts)))
    problem = PlacementProblem(load, cluster, groups)
    held = placement.physical_to_logical.reshape(placement.num_layers, placement.num_ranks, -1) >= 0
    left = int(held.any(axis=(0, 2)).sum())
    if left == cluster.num_ranks:
        check_placement(problem, placement, allow_empty=True)
        return problem
    # Ranks are lost, and groups need not fit the nodes that are left.
    check_placement(PlacementProblem(load, cluster), placement, allow_empty=True)
    return PlacementProblem(load, Cluster(left, cluster.slots_per_rank))


def _check_loads(lower: Floats, largest: Floats, mean: Floats, cluster: Cluster) -> None:
    """Insist that the loads and bounds of each layer can be those of one load."""
    least, most = mean * (1 - ROUNDING) - TINY, mean * (1 + ROUNDING) + TINY
    for wrong, sentence in (
        (mean < 0, "has a negative mean_rank_load of {mean}"),
        (largest < least, "has a mean_rank_load of {mean} above its max_rank_load of {largest}"),
        (largest > most * cluster.num_ranks, "has a max_rank_load of {largest}, and all ranks carry less together"),
        (lower < least, "claims a lower_bound of {lower} below its mean_rank_load of {mean}, which is one"),
        (lower > largest * (1 + ROUNDING) + TINY, "claims a lower_bound of {lower} above its max_rank_load, {largest}"),
    ):
        if wrong.any():
            layer = int(np.argmax(wrong))
            words = sentence.format(mean=mean[layer], largest=largest[layer], lower=lower[layer])
            raise FileFormatError(f"layer {layer} {words}")


def _check_bounds(names: list[Any], lower: Floats, mean: Floats, problem: PlacementProblem) -> None:
    """Insist that each layer names a bound that says something of such a problem, and that the mean is the mean."""
    from equipoise.bounds import BOUNDS

    for name in {name if isinstance(name, str) else "" for name in names}:
        if name not in BOUNDS or not BOUNDS[name].holds(problem):
            known = listed(row.name for row in BOUNDS.values() if row.holds(problem))
            raise FileFormatError(f"bound names {shown(name)}; it must name one of {known} for each layer")
    wrong = np.array([name == "mean" for name in names]) & (lower > mean * (1 + ROUNDING) + TINY)
    if wrong.any():
        layer = int(np.argmax(wrong))
        raise FileFormatError(
            f"layer {layer} claims a lower_bound of {lower[layer]} for the mean, which is {mean[layer]}"
        )
