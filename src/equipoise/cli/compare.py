"""``equipoise compare``: what balancing is worth on a load, and which strategy gets how far."""

from __future__ import annotations

from equipoise.cli import options
from equipoise.cli.console import print_json, progress, results, show, show_table
from equipoise.cli.contenders import NO_BALANCING, in_order, planned, strategies_to_compare, table_of
from equipoise.cli.loads import read_loads, summed
from equipoise.cli.models import check_model, groups_of, named_model
from equipoise.cli.warm import warm_up

__all__ = ["compare"]


def compare(
    loads: options.Loads,
    ranks: options.Ranks,
    slots: options.Slots,
    nodes: options.Nodes = 1,
    groups: options.Groups = None,
    seed: options.Seed = 0,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    key: options.Key = None,
    model: options.ModelName = None,
    as_json: options.AsJson = False,
) -> None:
    """Set no balancing and every strategy, the plain greedy among them, side by side on one load.

    With a backend asked for by name, only the strategies that run on it.

    \b
    equipoise compare counts.json --ranks 32 --slots 288
    equipoise compare counts.json --ranks 32 --slots 288 --nodes 4 --groups 8 --json
    """
    from equipoise.problem import Cluster, PlacementProblem

    known = named_model(model)
    groups = groups_of(known, groups, nodes)
    strategies, left_out = strategies_to_compare(backend)
    cluster = Cluster.from_slots(ranks, slots, nodes)
    statistics = read_loads(loads, key)
    check_model(known, statistics)
    problem = PlacementProblem(statistics, cluster, groups)
    with progress("planning", total=len(strategies)) as step:
        warm_up(strategies, backend, threads, problem=problem)
        contenders = [in_order(problem), *planned(problem, strategies, step, seed, backend, threads)]
    if as_json:
        print_json(
            {
                "source": statistics.source,
                "num_layers": problem.num_layers,
                "num_logical_experts": problem.num_logical_experts,
                "num_ranks": cluster.num_ranks,
                "num_slots": cluster.num_slots,
                "num_steps": statistics.num_windows,
                "is_hierarchical": problem.is_hierarchical,
                "contenders": [each.to_dict() for each in contenders],
            }
        )
        return
    console = results()
    where = f", {groups} groups on {nodes} nodes" if problem.is_hierarchical else ""
    show(
        console,
        f"{options.count_of(problem.num_layers, 'layer')} x {problem.num_logical_experts} experts -> "
        f"{cluster.num_slots} slots on {cluster.num_ranks} ranks{where}{summed(statistics)}\n",
    )
    show_table(console, table_of(contenders))
    show(
        console,
        f"\n{NO_BALANCING}: experts in order, redundant slots start again at expert 0; groups\n"
        "are not looked at. plain-greedy: the published method. Times are those of\n"
        "planning, with kernels compiled.",
    )
    if statistics.num_windows > 1:
        show(console, "realised: balancedness of each step by itself, its mean over steps and layers.")
    if left_out:
        show(console, f"Left out, as not to be had on {backend}: {', '.join(left_out)}.")
