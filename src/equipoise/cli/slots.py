"""``equipoise slots``: how many redundant experts a balancedness takes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli import options
from equipoise.cli.bars import bar
from equipoise.cli.console import print_json, progress, results, show
from equipoise.cli.loads import read_loads, summed
from equipoise.cli.models import check_model, groups_of, named_model
from equipoise.cli.warm import warm_up

if TYPE_CHECKING:
    from equipoise.capacity import Capacity
    from equipoise.problem import PlacementProblem

__all__ = ["slots"]

Balancedness = Annotated[
    float,
    typer.Option(
        "--balancedness",
        metavar="X",
        help="Mean / max rank load to reach, above 0 and at most 1.",
    ),
]
MostSlots = Annotated[
    int | None,
    typer.Option(
        "--most-slots",
        metavar="N",
        help="Do not try more slots in a layer. Left out: four for each expert.",
    ),
]


def slots(
    loads: options.Loads,
    ranks: options.Ranks,
    balancedness: Balancedness = 0.99,
    most_slots: MostSlots = None,
    nodes: options.Nodes = 1,
    groups: options.Groups = None,
    strategy: options.Strategy = None,
    parameters: options.Parameters = None,
    seed: options.Seed = 0,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    key: options.Key = None,
    model: options.ModelName = None,
    as_json: options.AsJson = False,
) -> None:
    """Show balancedness against redundant slots, and how many of them a target takes.

    \b
    equipoise slots counts.json --ranks 144 --balancedness 0.99
    equipoise slots counts.json --ranks 32 --nodes 4 --groups 8 --json
    """
    from equipoise.capacity import slots_for
    from equipoise.how import How
    from equipoise.problem import Cluster, PlacementProblem, count
    from equipoise.report import describe_answer

    known = named_model(model)
    groups = groups_of(known, groups, nodes)
    chosen = options.strategy_or_default(strategy)
    given = options.parse_parameters(parameters)
    How.of(chosen, seed=seed, backend=backend, threads=threads, **given)
    options.checked_balancedness(balancedness)
    ranks = count(ranks, "num_ranks")
    statistics = read_loads(loads, key)
    check_model(known, statistics)
    cluster = Cluster(ranks, -(-statistics.num_logical_experts // ranks), nodes)
    problem = PlacementProblem(statistics, cluster, groups)
    with progress("planning"):
        warm_up([chosen], backend, threads, given)
        capacity = slots_for(
            problem, balancedness, most_slots=most_slots, strategy=chosen, seed=seed, backend=backend, threads=threads,
            **given,
        )  # fmt: skip
    if as_json:
        print_json({"source": statistics.source, **_report(problem, capacity)})
        return
    where = f", {groups} groups on {nodes} nodes" if problem.is_hierarchical else ""
    console = results()
    show(
        console,
        f"{options.count_of(problem.num_layers, 'layer')} x {problem.num_logical_experts} experts on "
        f"{options.count_of(ranks, 'rank')}{where}{summed(statistics)}\n",
    )
    _print_table(capacity)
    show(console, "")
    show(console, f"{'mean of layers':<15} {describe_answer(capacity, capacity.mean)}")
    show(console, f"{'every layer':<15} {describe_answer(capacity, capacity.worst)}")
    if statistics.empty_layers:
        show(console, f"{'no tokens':<15} in {options.layers(statistics.empty_layers)}, which count as balanced")


def _print_table(capacity: Capacity) -> None:
    from rich import box
    from rich.table import Table

    console = results()
    plain = console.options.ascii_only
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    steps = any(point.steps for point in capacity.points)
    for heading in (
        "\nslots",
        "\na rank",
        "\nredundant",
        "balancedness\nmean   worst ",
        *(["realised\nmean"] if steps else []),
        "at most, proved\nmean   worst ",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(f"\n0{'mean':^12}1", no_wrap=True)
    for point in capacity.points:
        table.add_row(
            f"{point.num_slots:,}",
            str(point.cluster.slots_per_rank),
            f"{point.num_redundant_experts:,}",
            f"{_spell(point.mean_balancedness)}  {_spell(point.worst_balancedness)}",
            *([_spell(point.steps.mean_balancedness) if point.steps else "-"] if steps else []),
            f"{_spell(point.mean_limit, up=True)}  {_spell(point.worst_limit, up=True)}",
            bar(point.mean_balancedness, 1.0, 14, plain),
            style="green" if point.num_slots == capacity.mean.found else None,
        )
    console.print(table)


def _spell(value: float, up: bool = False) -> str:
    """Spell a balancedness with four places: rounded down, or up where it is a limit, so that neither claims more."""
    scaled = round(value * 1e4, 6)
    whole = int(scaled)
    return f"{(whole + (up and scaled > whole)) / 1e4:.4f}"


def _report(problem: PlacementProblem, capacity: Capacity) -> dict[str, Any]:
    return {
        "num_layers": problem.num_layers,
        "num_logical_experts": problem.num_logical_experts,
        "num_ranks": problem.cluster.num_ranks,
        "is_hierarchical": problem.is_hierarchical,
        "target": capacity.target,
        "mean": dataclasses.asdict(capacity.mean),
        "worst": dataclasses.asdict(capacity.worst),
        "points": [
            {
                "num_slots": point.num_slots,
                "slots_per_rank": point.cluster.slots_per_rank,
                "num_redundant_experts": point.num_redundant_experts,
                "mean_balancedness": point.mean_balancedness,
                "worst_balancedness": point.worst_balancedness,
                "realised_balancedness": None if point.steps is None else point.steps.mean_balancedness,
                "mean_limit": point.mean_limit,
                "worst_limit": point.worst_limit,
            }
            for point in capacity.points
        ],
    }
