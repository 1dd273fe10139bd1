"""``equipoise slots``: how many redundant experts a balancedness takes, or how many are worth their time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli import options
from equipoise.cli.bars import bar
from equipoise.cli.console import print_json, progress, results, show, show_table
from equipoise.cli.loads import read_loads, summed
from equipoise.cli.models import check_model, groups_of, named_model
from equipoise.cli.pages import slots_page
from equipoise.cli.slot_times import show_times, weights_of
from equipoise.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from equipoise.capacity import Capacity
    from equipoise.load import LoadStatistics
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
BytesPerExpert = Annotated[
    float | None,
    typer.Option(
        "--bytes-per-expert",
        metavar="N",
        help="With --gpu: bytes of one expert's weights in a layer. Left out: 44e6, those of DeepSeek-V3 in fp8.",
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
    gpu: options.Gpu = None,
    top_k: options.TopK = None,
    tokens_per_rank: options.TokensPerRank = None,
    bytes_per_expert: BytesPerExpert = None,
    strategy: options.Strategy = None,
    parameters: options.Parameters = None,
    seed: options.Seed = 0,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    key: options.Key = None,
    report: options.Report = None,
    model: options.ModelName = None,
    as_json: options.AsJson = False,
) -> None:
    """Show balancedness against redundant slots, and how many of them a target takes. With --gpu, microseconds instead.

    \b
    equipoise slots counts.json --ranks 144 --balancedness 0.99
    equipoise slots counts.json --ranks 32 --gpu h200 --top-k 8 --tokens-per-rank 4,64,256
    equipoise slots counts.json --ranks 32 --nodes 4 --groups 8 --json
    """
    from equipoise.capacity import slots_for
    from equipoise.problem import Cluster, PlacementProblem, count
    from equipoise.report import describe_answer

    known = named_model(model)
    groups = groups_of(known, groups, nodes)
    how, given = options.how_of(strategy, parameters, seed, backend, threads)
    options.checked_balancedness(balancedness)
    options.check_report(report)
    timing = options.timing_of(gpu, tokens_per_rank, top_k, known)
    _check_times(timing, bytes_per_expert, report)
    ranks = count(ranks, "num_ranks")
    statistics = read_loads(loads, key)
    check_model(known, statistics)
    cluster = Cluster(ranks, -(-statistics.num_logical_experts // ranks), nodes)
    problem = PlacementProblem(statistics, cluster, groups)
    if timing is not None:
        weights, said = weights_of(bytes_per_expert, known)
        asked = {"most_slots": most_slots, "bytes_per_expert": weights, **how, **given}
        show_times(problem, timing, asked, statistics, said, as_json)
        return
    with progress("planning"):
        capacity = slots_for(problem, balancedness, most_slots=most_slots, **how, **given)
    if report is not None:
        answers = [
            f"Mean of layers: {describe_answer(capacity, capacity.mean)}",
            f"Every layer: {describe_answer(capacity, capacity.worst)}",
        ]
        options.write_report(report, slots_page(capacity, statistics.source, answers))
    if as_json:
        print_json({"source": statistics.source, **_report(problem, capacity)})
        return
    _print(problem, capacity, statistics)


def _check_times(timing: options.Timing | None, bytes_per_expert: float | None, report: Path | None) -> None:
    """Refuse options that say something of microseconds where none are shown, and the reverse."""
    if bytes_per_expert is not None and not 0 < bytes_per_expert < float("inf"):
        raise InvalidInputError(f"--bytes-per-expert is {bytes_per_expert:g}; it must be finite and above 0.")
    if timing is None and bytes_per_expert is not None:
        raise InvalidInputError(
            "--bytes-per-expert is given without --gpu, which says what slots take; add --gpu h200."
        )
    if timing is not None and report is not None:
        raise InvalidInputError("--report shows balancedness against slots; leave out --gpu, or --report.")


def _print(problem: PlacementProblem, capacity: Capacity, statistics: LoadStatistics) -> None:
    from equipoise.report import describe_answer

    cluster = problem.cluster
    where = f", {problem.num_expert_groups} groups on {cluster.num_nodes} nodes" if problem.is_hierarchical else ""
    console = results()
    show(
        console,
        f"{counted(problem.num_layers, 'layer')} x {problem.num_logical_experts} experts on "
        f"{counted(cluster.num_ranks, 'rank')}{where}{summed(statistics.num_windows)}\n",
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
    show_table(console, table)


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
