"""``equipoise replan``: what moving experts would buy, and the plan that moves no more than that."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli import options
from equipoise.cli.console import print_json, progress
from equipoise.cli.loads import read_loads
from equipoise.cli.models import check_model, groups_of, named_model
from equipoise.cli.pages import plan_page, replan_page
from equipoise.cli.replan_times import Times, planned_in_time
from equipoise.errors import InvalidInputError, numbered, shown

if TYPE_CHECKING:
    from equipoise.migration.schedule import LinkSpeeds, MigrationSchedule
    from equipoise.placement import Placement
    from equipoise.plan import Plan
    from equipoise.problem import PlacementProblem
    from equipoise.replan.budget import Budget
    from equipoise.replan.frontier import Frontier

__all__ = ["replan"]

Current = Annotated[
    Path,
    typer.Option(
        "--current", metavar="FILE", help="The placement in force: a plan, or a map of any engine.", show_default=False
    ),
]
CurrentRanks = Annotated[
    int | None,
    typer.Option(
        "--current-ranks",
        metavar="N",
        help="EP ranks of --current, if its file does not say. Left out: those of --ranks.",
    ),
]
Ranks = Annotated[int | None, typer.Option("--ranks", metavar="N", help="EP ranks to plan for. Left out: as they are.")]
Slots = Annotated[
    int | None,
    typer.Option("--slots", metavar="N", help="Slots in a layer to plan for. Left out: as many a rank as now."),
]
Nodes = Annotated[
    int | None,
    typer.Option("--nodes", metavar="N", help="Nodes that the ranks are spread over. Left out: as in --current."),
]
Groups = Annotated[
    int | None,
    typer.Option("--groups", metavar="N", help="Expert groups that stay whole on a node. Left out: as in --current."),
]
Most = Annotated[
    int | None, typer.Option("--max-transfers", metavar="K", help="Plan with at most K transfers in each layer.")
]
Total = Annotated[
    int | None,
    typer.Option(
        "--max-transfers-total",
        metavar="K",
        help="Plan with at most K transfers in all layers together, where they gain most.",
    ),
]
Least = Annotated[
    float | None,
    typer.Option(
        "--min-gain",
        metavar="X",
        help="Let a layer stay as it is unless its busiest rank loses this part of its load, or of its time, at least.",
    ),
]
Layers = Annotated[
    int | None,
    typer.Option("--max-layers", metavar="K", help="Let at most K layers change, those that gain most."),
]
Lost = Annotated[
    str | None,
    typer.Option("--lost-ranks", metavar="R,R", help="Ranks that are gone: what they held is lost."),
]
Bytes = Annotated[
    int | None,
    typer.Option("--bytes-per-expert", metavar="N", help="Size of one expert's weights in one layer, to show bytes."),
]
Restored = Annotated[
    str | None,
    typer.Option(
        "--restored-ranks",
        metavar="R,R",
        help="Ranks that --current records as lost, and that are back, without any weights.",
    ),
]
IntraNode = Annotated[
    float | None,
    typer.Option(
        "--intra-node-gbps",
        metavar="X",
        help="Gigabits a second from rank to rank in a node. Left out: 1600.",
    ),
]
InterNode = Annotated[
    float | None,
    typer.Option(
        "--inter-node-gbps",
        metavar="X",
        help="Gigabits a second from a rank to another node. Left out: 200.",
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the new plan there as JSON, whole or not at all.")
]


def replan(
    loads: options.Loads,
    current: Current,
    max_transfers: Most = None,
    max_transfers_total: Total = None,
    min_gain: Least = None,
    max_layers: Layers = None,
    lost_ranks: Lost = None,
    restored_ranks: Restored = None,
    ranks: Ranks = None,
    slots: Slots = None,
    nodes: Nodes = None,
    groups: Groups = None,
    current_ranks: CurrentRanks = None,
    gpu: options.Gpu = None,
    tokens_per_rank: options.TokensPerRank = None,
    top_k: options.TopK = None,
    bytes_per_expert: Bytes = None,
    model: options.ModelName = None,
    intra_node_gbps: IntraNode = None,
    inter_node_gbps: InterNode = None,
    threads: options.Threads = None,
    key: options.Key = None,
    out: Out = None,
    report: options.Report = None,
    as_json: options.AsJson = False,
) -> None:
    """Show balancedness against transfers, from the placement in force; with a limit, plan within it.

    With --gpu, plan for the least time of the busiest rank, move as few weights as that takes, and let layers stay that
    gain too little by it.

    \b
    equipoise replan counts.json --current plan.json
    equipoise replan counts.json --current plan.json --max-transfers 16 --out next.json
    equipoise replan counts.json --current plan.json --lost-ranks 3,7 --max-transfers 32
    equipoise replan counts.json --current plan.json --restored-ranks 3 --max-transfers 32 --model deepseek-v3
    equipoise replan counts.json --current map.json --current-ranks 32 --ranks 40 --max-transfers 80 --out next.json
    equipoise replan counts.json --current plan.json --gpu h200 --tokens-per-rank 4,64,256 --min-gain 0.02
    """
    from equipoise.cli.in_force import read_in_force
    from equipoise.files import check_writable
    from equipoise.replan.budget import Budget
    from equipoise.replan.in_force import known_lost
    from equipoise.replan.in_time import refuse_limits

    known = named_model(model)
    if bytes_per_expert is None and known is not None:
        bytes_per_expert = known.bytes_per_expert
    links = _links(intra_node_gbps, inter_node_gbps)
    budget = Budget(max_transfers, max_transfers_total, min_gain, max_layers)
    timing = options.timing_of(gpu, tokens_per_rank, top_k, known)
    if timing is not None:
        refuse_limits(budget)
    if out is not None:
        if timing is None and budget == Budget():
            raise InvalidInputError("--out needs a plan to write; say how much may move with --max-transfers.")
        check_writable(out)
    options.check_report(report)
    with progress("reading"):
        in_force = read_in_force(current, current_ranks, ranks)
    load = read_loads(loads, key)
    check_model(known, load)
    held = in_force.placement
    lost = known_lost(in_force, _ranks(lost_ranks, "--lost-ranks"), _ranks(restored_ranks, "--restored-ranks"))
    if set(lost) & set(in_force.lost_ranks):
        print(
            f"note: {current} records {numbered('rank', in_force.lost_ranks)} as lost; name those that are back with "
            "--restored-ranks.",
            file=sys.stderr,
        )
    load = in_force.met(load)
    problem = in_force.problem(load, ranks, slots, nodes, groups_of(known, groups, nodes))
    budget, size = dataclasses.replace(budget, lost_ranks=lost), bytes_per_expert
    shown: Frontier | Times
    with progress("planning"):
        if timing is None:
            shown, found, schedule = _planned(problem, held, budget, size, threads)
        else:
            now = held if in_force.plan is None else in_force.plan
            shown, found, schedule = planned_in_time(timing, problem, now, budget, size, threads)
    if found is not None:
        found = found.named(in_force.named(load))
    if found is not None and out is not None:
        found.save(out)
    if report is not None:
        options.write_report(report, _page(shown, found, problem, load.source))
    if as_json:
        print_json(_report(shown, found, schedule, links, out))
        return
    _print(shown, found, schedule, links, out)


def _planned(
    problem: PlacementProblem, held: Placement, budget: Budget, bytes_per_expert: int | None, threads: int | None
) -> tuple[Frontier, Plan | None, MigrationSchedule | None]:
    """Return what every limit buys and, where the budget has one, the plan within it and how it is reached."""
    from equipoise.how import How
    from equipoise.migration.schedule import MigrationSchedule
    from equipoise.replan.frontier import frontier, frontier_and_plan

    lost = budget.lost_ranks
    if not (budget.limits_transfers or budget.keeps_layers):
        curve = frontier(problem, held, lost_ranks=lost, bytes_per_expert=bytes_per_expert, threads=threads)
        return curve, None, None
    curve, found = frontier_and_plan(problem, held, budget, How.of(threads=threads), bytes_per_expert)
    nodes, size = problem.cluster.num_nodes, bytes_per_expert or 0
    schedule = MigrationSchedule(held, found.placement, nodes, lost, bytes_per_expert=size, threads=threads)
    return curve, found, schedule


def _page(shown: Frontier | Times, found: Plan | None, problem: PlacementProblem, source: str) -> str:
    """Return the page that ``--report`` writes: of what transfers buy, or of the plan in time."""
    if not isinstance(shown, Times):
        return replan_page(shown, source, found)
    assert found is not None
    return plan_page(found, problem, source)


def _print(
    shown: Frontier | Times,
    found: Plan | None,
    schedule: MigrationSchedule | None,
    links: LinkSpeeds,
    out: Path | None,
) -> None:
    print(shown.summary())
    if found is not None and schedule is not None:
        print()
        print(found.summary())
        print(f"{'migration':<13} {schedule.summary(links)}")
        if not schedule.num_bytes and schedule.num_transfers:
            print(f"{'time':<13} not known without bytes: name --bytes-per-expert or --model")
        if out is not None:
            print(f"{'written to':<13} {out}")


def _links(intra_node_gbps: float | None, inter_node_gbps: float | None) -> LinkSpeeds:
    """Return the speeds that were named, in gigabits a second, the library's own for the others."""
    from equipoise.migration.schedule import LinkSpeeds

    given = {"--intra-node-gbps": ("node", intra_node_gbps), "--inter-node-gbps": ("remote", inter_node_gbps)}
    for option, (_, value) in given.items():
        if value is not None and not 0 < value < float("inf"):
            raise InvalidInputError(f"{option} is {value}; it must be a finite number of gigabits a second above 0.")
    return LinkSpeeds(**{name: value * 1e9 / 8 for name, value in given.values() if value is not None})


def _ranks(text: str | None, option: str) -> list[int]:
    """Return the ranks of a list such as 3,7."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise InvalidInputError(
            f"{option} is {shown(text)}; it must be ranks with commas between, such as 3,7."
        ) from None


def _report(
    shown: Frontier | Times,
    found: Plan | None,
    schedule: MigrationSchedule | None,
    links: LinkSpeeds,
    out: Path | None,
) -> dict[str, Any]:
    report: dict[str, Any] = {
        **(shown.to_dict() if isinstance(shown, Times) else _curve(shown)),
        "plan": None if found is None else json.loads(found.to_json()),
        "written_to": None if out is None else str(out),
    }
    if schedule is not None:
        report["migration"] = {
            "transfers": schedule.num_transfers,
            "bytes": schedule.num_bytes if schedule.num_bytes or not schedule.num_transfers else None,
            "rounds": int(schedule.num_rounds.sum()),
            "restores": len(schedule.restores),
            "seconds": schedule.seconds(links) if schedule.num_bytes or not schedule.num_transfers else None,
        }
    return report


def _curve(curve: Frontier) -> dict[str, Any]:
    first = int((curve.mean_balancedness == curve.mean_balancedness).argmax())  # before it, experts have no slot
    size = curve.bytes_per_expert
    return {
        "least_transfers_per_layer": first,
        "knee": curve.knee,
        "transfers": curve.transfers[first:].tolist(),
        "bytes": None if size is None else (curve.transfers[first:] * size).tolist(),
        "mean_balancedness": curve.mean_balancedness[first:].tolist(),
        "worst_balancedness": curve.worst_balancedness[first:].tolist(),
    }
