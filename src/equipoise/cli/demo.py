"""``equipoise demo``: the main job on a load that is made up on the spot, no arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from equipoise.cli import options
from equipoise.cli.bars import columns
from equipoise.cli.console import print_json, progress, results, show, show_table
from equipoise.cli.contenders import NO_BALANCING, Contender, in_order, planned, table_of, timed
from equipoise.cli.warm import warm_up

if TYPE_CHECKING:
    from rich.console import Console

    from equipoise.problem import PlacementProblem

__all__ = ["demo"]

PRESET, RANKS, SLOTS = "deepseek-v3", 32, 288


def demo(
    gpu: options.Gpu = None,
    tokens_per_rank: options.TokensPerRank = None,
    top_k: options.TopK = None,
    as_json: options.AsJson = False,
) -> None:
    """Plan a generated DeepSeek-V3 load on 32 ranks, and show the ranks before and after.

    \b
    equipoise demo
    equipoise demo --gpu h200 --tokens-per-rank 4,64,256
    """
    from equipoise.load import generate_load
    from equipoise.problem import Cluster, PlacementProblem

    timing = options.timing_of(gpu, tokens_per_rank, top_k)
    statistics = generate_load(PRESET)
    problem = PlacementProblem(statistics.load, Cluster.from_slots(RANKS, SLOTS))
    strategies = ["plain-greedy", options.strategy_or_default(None)]
    with progress("planning", total=len(strategies)) as step:
        warm_up(strategies, problem=problem)
        contenders = [in_order(problem), *planned(problem, strategies, step)]
        contenders = timed(contenders, problem, timing)
    layer = int(contenders[0].plan.metrics.balancedness.argmin())
    if as_json:
        print_json(
            {
                "source": statistics.source,
                "num_layers": problem.num_layers,
                "num_logical_experts": problem.num_logical_experts,
                "num_ranks": RANKS,
                "num_slots": SLOTS,
                "shown_layer": layer,
                "contenders": [
                    {**each.to_dict(), "rank_load": each.plan.placement.rank_load(problem.load)[layer].tolist()}
                    for each in contenders
                ],
            }
        )
        return
    console = results()
    show(
        console,
        f"A generated load (made up, not recorded) in the shape of DeepSeek-V3:\n"
        f"{problem.num_layers} MoE layers x {problem.num_logical_experts} experts -> {SLOTS} slots on {RANKS} EP ranks "
        f"({problem.num_redundant_experts} slots redundant).\n\n"
        f"Layer {layer}, the worst before balancing. One column a rank, 1.0 is the mean:",
    )
    for each in contenders:
        if each.plan.time is None:  # of a plan in time, the tokens of a rank are not what counts
            _show_layer(console, problem, each, layer)
    show(console, f"\nAll {problem.num_layers} layers:\n")
    show_table(console, table_of(contenders))
    if timing is not None:
        show(console, f"\n{options.timing_note(timing)}")
    show(
        console,
        "\nA layer waits for its busiest rank: at balancedness b, its ranks do useful work\n"
        "for the share b of the time. The gap is to a proved lower bound, which no\n"
        "placement can beat.\n\n"
        f"Your own load:  equipoise plan LOADS --ranks {RANKS} --slots {SLOTS} --out plan.json",
    )


def _show_layer(console: Console, problem: PlacementProblem, each: Contender, layer: int) -> None:
    rank_load = each.plan.placement.rank_load(problem.load)[layer]
    busiest = float(rank_load.max() / rank_load.mean())
    title = f"{each.name}, experts in order" if each.name == NO_BALANCING else each.name
    show(console, f"\n{title}: busiest rank {busiest:.3f} x mean, balancedness {1 / busiest:.4f}")
    console.print(columns(rank_load.tolist(), float(rank_load.mean()), console, rows_to_level=2), no_wrap=True)
