"""``equipoise evaluate``: what a placement that exists is worth on a load, and how much better any could be."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from equipoise.cli import options
from equipoise.cli.bars import ratio
from equipoise.cli.console import print_json, progress, results, show, show_table
from equipoise.cli.contenders import Contender, in_order, table_of
from equipoise.cli.loads import read_loads, summed
from equipoise.cli.models import check_model, groups_of, named_model
from equipoise.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from equipoise.cli.in_force import InForce
    from equipoise.load import LoadStatistics
    from equipoise.plan import Plan
    from equipoise.problem import PlacementProblem

__all__ = ["evaluate"]

PlacementFile = Annotated[
    Path,
    typer.Option("--placement", metavar="FILE", help="A plan, or any map that convert reads.", show_default=False),
]
Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="FILE",
        help="Another placement, such as the one that the engine says is in force: compared slot by slot.",
    ),
]
Ranks = Annotated[int | None, typer.Option("--ranks", metavar="N", help="EP ranks, where the file does not say.")]
Nodes = Annotated[int | None, typer.Option("--nodes", metavar="N", help="Nodes. Left out: as in the plan, else 1.")]
Groups = Annotated[
    int | None, typer.Option("--groups", metavar="N", help="Expert groups that must lie whole on a node.")
]
Least = Annotated[
    float | None,
    typer.Option("--balancedness", metavar="X", help="Exit with 1 if the mean over layers is below X."),
]


def evaluate(
    loads: options.Loads,
    placement: PlacementFile,
    against: Against = None,
    ranks: Ranks = None,
    nodes: Nodes = None,
    groups: Groups = None,
    balancedness: Least = None,
    max_gap: options.MaxGap = None,
    key: options.Key = None,
    model: options.ModelName = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a placement is worth on a load: balancedness, realised step by step, duplicates, gap to the bound.

    \b
    equipoise evaluate counts.json --placement plan.json
    equipoise evaluate counts.json --placement map.json --ranks 32 --balancedness 0.95
    equipoise evaluate counts.json --placement plan.json --against dumped_map.json

    The gap is to a proved lower bound: no placement in the same slots has its busiest rank further down than that.
    Exit code 1: the placement is worse than --balancedness or --max-gap asks for, or differs from --against.
    """
    from equipoise.cli.in_force import read_in_force

    options.checked_gap(max_gap)
    if balancedness is not None:
        options.checked_balancedness(balancedness)
    known = named_model(model)
    with progress("reading"):
        held = read_in_force(placement, ranks, None, "--ranks")
        files = [held] if against is None else [held, read_in_force(against, None, held.placement.num_ranks)]
    statistics = read_loads(loads, key)
    check_model(known, statistics)
    contenders = []
    with progress("measuring"):
        for held in files:
            problem = held.problem(statistics, None, None, nodes, groups_of(known, groups, nodes))
            contenders.append(Contender(Path(held.source).name, _measured(problem, held), None))
        contenders.append(in_order(problem))
    differing = None if against is None else _differing(*files)
    if as_json:
        found: dict[str, Any] = {"source": statistics.source, "num_steps": statistics.num_windows}
        print_json({**found, "slots_that_differ": differing, "contenders": [each.to_dict() for each in contenders]})
    else:
        _print(statistics, contenders, differing)
    _insist(contenders[0], balancedness, max_gap, differing)


def _measured(problem: PlacementProblem, held: InForce) -> Plan:
    """Return the placement of a file as a plan for the load: recounted, and with its own proof."""
    from equipoise.plan import Plan
    from equipoise.provenance import Provenance

    @dataclass(frozen=True)
    class Given:
        """What was in a file."""

        name: ClassVar[str] = "given"

    provenance = Provenance.of(Given(), 0, "numpy", {}, problem.digest)
    empty = bool((held.placement.physical_to_logical < 0).any())
    return Plan.of(problem, held.placement, provenance, quick=empty, lost_ranks=held.lost_ranks, shares=held.shares)


def _differing(first: InForce, second: InForce) -> int:
    """Return how many slots of two placements hold different experts."""
    import numpy as np

    one, other = first.placement.physical_to_logical, second.placement.physical_to_logical
    if one.shape != other.shape or first.layer_ids != second.layer_ids:
        raise InvalidInputError(
            f"{first.source} is of {one.shape[0]} layers x {one.shape[1]} slots and {second.source} of "
            f"{other.shape[0]} x {other.shape[1]}, or their layer ids differ; only placements of the same slots "
            "are compared."
        )
    return int(np.count_nonzero(one != other))


def _print(statistics: LoadStatistics, contenders: list[Contender], differing: int | None) -> None:
    plan = contenders[0].plan
    console, cluster = results(), plan.cluster
    layers = counted(plan.placement.num_layers, "layer")
    show(
        console,
        f"{layers} x {plan.placement.num_logical_experts} experts -> {cluster.num_slots} slots on {cluster.num_ranks} "
        f"ranks{summed(statistics.num_windows)}\n",
    )
    show_table(console, table_of(contenders))
    best = 1.0 / (1.0 + plan.certificate.mean_gap)
    show(
        console,
        f"\nNo placement in these slots makes the busiest ranks more than {1 - best:.2%} lighter, as a mean over the\n"
        "layers: that is proved, not that any does. equipoise plan finds one that is close.",
    )
    if differing is not None:
        slots = plan.placement.physical_to_logical.size
        same = "the same in every slot" if not differing else f"different in {differing:,} of {slots:,} slots"
        show(console, f"{contenders[0].name} and {contenders[1].name} are {same}.")


def _insist(row: Contender, balancedness: float | None, max_gap: float | None, differing: int | None) -> None:
    """End with 1 and say why, where something that was asked for does not hold."""
    missed = []
    mean, gap = row.plan.metrics.mean_balancedness, row.plan.certificate.max_gap
    if balancedness is not None and mean < balancedness:
        missed.append(f"the mean balancedness of {mean:.4f} is below the --balancedness of {balancedness:g}")
    if max_gap is not None and gap > max_gap:
        missed.append(f"the largest gap of {ratio(gap)} is above the --max-gap of {ratio(max_gap)}")
    if differing:
        missed.append(f"{differing:,} slots hold other experts than in --against")
    for reason in missed:
        print(f"missed: {reason}.", file=sys.stderr)
    if missed:
        raise typer.Exit(1)
