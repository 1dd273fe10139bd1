"""``equipoise compare``: what balancing is worth on a load, and which strategy gets how far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli import options
from equipoise.cli.console import print_json, progress, results, show, show_table
from equipoise.cli.contenders import NO_BALANCING, Contender, in_order, planned, strategies_to_compare, table_of, timed
from equipoise.cli.loads import read_loads, summed
from equipoise.cli.models import check_model, groups_of, named_model
from equipoise.cli.pages import compare_page
from equipoise.cli.sharing import connected_one, sharing_of, sharing_table
from equipoise.cli.warm import warm_up
from equipoise.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from equipoise.load import LoadStatistics
    from equipoise.problem import PlacementProblem

__all__ = ["compare"]

Drift = Annotated[
    float | None, typer.Option("--drift", metavar="X", help="The drift for --shares. Left out: 0.2, which is 20 %.")
]


def compare(
    loads: options.Loads,
    ranks: options.Ranks,
    slots: options.Slots,
    nodes: options.Nodes = 1,
    groups: options.Groups = None,
    gpu: options.Gpu = None,
    tokens_per_rank: options.TokensPerRank = None,
    top_k: options.TopK = None,
    seed: options.Seed = 0,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    key: options.Key = None,
    report: options.Report = None,
    model: options.ModelName = None,
    shares: Annotated[
        bool, typer.Option("--shares", help="Show what uneven shares are worth, now and after a drift.")
    ] = False,
    drift: Drift = None,
    as_json: options.AsJson = False,
) -> None:
    """Set no balancing and every strategy, the plain greedy among them, side by side on one load.

    With a backend asked for by name, only the strategies that run on it.

    \b
    equipoise compare counts.json --ranks 32 --slots 288
    equipoise compare counts.json --ranks 32 --slots 288 --shares
    equipoise compare counts.json --ranks 32 --slots 288 --nodes 4 --groups 8 --json
    equipoise compare counts.json --ranks 32 --slots 288 --gpu h200 --tokens-per-rank 4,64,256
    """
    from equipoise.problem import Cluster, PlacementProblem
    from equipoise.strategies import DEFAULT

    options.check_report(report)
    if drift is not None and not shares:
        raise InvalidInputError("--drift is given without --shares, which says what uneven shares are worth; add it.")
    known = named_model(model)
    timing = options.timing_of(gpu, tokens_per_rank, top_k, known)
    groups = groups_of(known, groups, nodes)
    strategies, left_out = strategies_to_compare(backend)
    cluster = Cluster.from_slots(ranks, slots, nodes)
    statistics = read_loads(loads, key)
    check_model(known, statistics)
    problem = PlacementProblem(statistics, cluster, groups)
    with progress("planning", total=len(strategies)) as step:
        warm_up(strategies, backend, threads, problem=problem)
        if shares:
            warm_up([DEFAULT], threads=threads, parameters={"connected": True, "shares": "best"}, problem=problem)
        contenders = [in_order(problem), *planned(problem, strategies, step, seed, backend, threads)]
        sharing = []
        if shares:
            contenders.append(connected_one(problem, seed, threads))
            sharing = sharing_of(contenders, problem, 0.2 if drift is None else drift)
        contenders = timed(contenders, problem, timing)
    if report is not None:
        options.write_report(report, compare_page(contenders, problem, statistics.source))
    if as_json:
        print_json(_report(problem, statistics, contenders, sharing))
        return
    _print(problem, statistics, contenders, timing)
    if shares:
        _print_sharing(sharing)
    if left_out:
        show(results(), f"Left out, as not to be had on {backend}: {', '.join(left_out)}.")


def _report(
    problem: PlacementProblem, statistics: LoadStatistics, contenders: list[Contender], sharing: list[dict[str, Any]]
) -> dict[str, Any]:
    cluster = problem.cluster
    return {
        "source": statistics.source,
        "num_layers": problem.num_layers,
        "num_logical_experts": problem.num_logical_experts,
        "num_ranks": cluster.num_ranks,
        "num_slots": cluster.num_slots,
        "num_steps": statistics.num_windows,
        "is_hierarchical": problem.is_hierarchical,
        "contenders": [each.to_dict() for each in contenders],
        **({"shares": sharing} if sharing else {}),
    }


def _print(
    problem: PlacementProblem, statistics: LoadStatistics, contenders: list[Contender], timing: options.Timing | None
) -> None:
    console, cluster = results(), problem.cluster
    where = f", {problem.num_expert_groups} groups on {cluster.num_nodes} nodes" if problem.is_hierarchical else ""
    show(
        console,
        f"{counted(problem.num_layers, 'layer')} x {problem.num_logical_experts} experts -> "
        f"{cluster.num_slots} slots on {cluster.num_ranks} ranks{where}{summed(statistics.num_windows)}\n",
    )
    show_table(console, table_of(contenders))
    show(
        console,
        f"\n{NO_BALANCING}: experts in order, redundant slots start again at expert 0; groups\n"
        "are not looked at. plain-greedy: the published method. Times are those of\n"
        "planning, with kernels compiled.",
    )
    if timing is not None:
        show(console, options.timing_note(timing))
    if statistics.num_windows > 1:
        show(console, "realised: balancedness of each step by itself, its mean over steps and layers.")


def _print_sharing(sharing: list[dict[str, Any]]) -> None:
    console = results()
    console.print()
    show_table(console, sharing_table(sharing))
    show(
        console,
        "\nMean balancedness where replicas get even parts of their expert's tokens, and with\n"
        "the best shares, which is also what a dispatcher that solves each batch can reach.\n"
        "The drift is in log space, no weights move. Components: ranks that share experts.",
    )
