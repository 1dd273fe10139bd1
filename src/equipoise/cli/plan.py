"""``equipoise plan``: from a load to a placement on disk."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli import options
from equipoise.cli.bars import ratio, seconds
from equipoise.cli.console import print_json, progress
from equipoise.cli.loads import read_loads
from equipoise.cli.models import check_model, groups_of, named_model
from equipoise.cli.pages import plan_page
from equipoise.cli.warm import warm_up
from equipoise.errors import InvalidInputError

if TYPE_CHECKING:
    from equipoise.load import LoadStatistics
    from equipoise.plan import Plan
    from equipoise.problem import Cluster, PlacementProblem
    from equipoise.timing import TimeCertificate

__all__ = ["plan"]

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write the plan there as JSON, whole or not at all."),
]


Forecast = Annotated[
    bool,
    typer.Option(
        "--forecast", help="Plan for what may come next: LOADS are windows in a row, whose course is forecast."
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--window",
        metavar="STEPS",
        help="With --forecast: sum so many steps of LOADS to a window, about as many as a plan serves. Left out: 1.",
    ),
]


def plan(
    loads: options.Loads,
    ranks: options.Ranks,
    slots: options.Slots,
    nodes: options.Nodes = 1,
    groups: options.Groups = None,
    gpu: options.Gpu = None,
    tokens_per_rank: options.TokensPerRank = None,
    top_k: options.TopK = None,
    strategy: options.Strategy = None,
    parameters: options.Parameters = None,
    seed: options.Seed = 0,
    max_gap: options.MaxGap = None,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    key: options.Key = None,
    model: options.ModelName = None,
    forecast: Forecast = False,
    window: Window = None,
    shares: Annotated[str, typer.Option("--shares", metavar="KIND", help="even, or best for the placement.")] = "even",
    connected: Annotated[
        bool, typer.Option("--connected", help="Connect ranks by shared experts, for shares to follow a drift.")
    ] = False,
    out: Out = None,
    report: options.Report = None,
    as_json: options.AsJson = False,
) -> None:
    """Decide where the experts live, and prove how close that is to the best possible.

    \b
    equipoise plan counts.json --ranks 32 --slots 288 --out plan.json
    equipoise plan counts.npy --ranks 32 --slots 288 --nodes 4 --groups 8
    equipoise plan counts.npy --ranks 32 --slots 288 --connected --shares best
    equipoise plan counts.pt --ranks 64 --slots 320 --max-gap 0.001 --json
    equipoise plan steps.npz --ranks 16 --slots 48 --forecast --window 25
    equipoise plan counts.json --ranks 32 --slots 288 --gpu h200 --tokens-per-rank 4,64,256
    """
    from equipoise.dispatch import choose_shares
    from equipoise.files import check_writable
    from equipoise.problem import Cluster

    # All that can be refused is refused before anything slow begins.
    known = named_model(model)
    groups = groups_of(known, groups, nodes)
    how, given = options.how_of(strategy, parameters, seed, backend, threads, max_gap)
    steps = _steps(forecast, window)
    timing = options.timing_of(gpu, tokens_per_rank, top_k, known)
    choose_shares(shares)
    if out is not None:
        check_writable(out)
    options.check_report(report)
    cluster = Cluster.from_slots(ranks, slots, nodes)
    statistics = read_loads(loads, key)
    check_model(known, statistics)
    problem = _asked(statistics, cluster, groups, steps, timing)
    given |= {"shares": shares, "connected": connected}
    found, elapsed = _planned(problem, how, given, forecast)
    found = found.named(statistics.layer_ids)
    if out is not None:
        found.save(out)
    if report is not None:
        options.write_report(report, plan_page(found, problem, statistics.source))
    if as_json:
        print_json(_report(found, statistics, elapsed, max_gap, out))
    else:
        _print(found, statistics, elapsed, out)
    if max_gap is not None:
        _exit_if_missed(found, max_gap)


def _steps(forecast: bool, window: int | None) -> int | None:
    """Return how many steps are summed to a window whose next is forecast, None where nothing is."""
    if window is not None and not forecast:
        raise InvalidInputError("--window says what is summed before the next is forecast; pass --forecast with it.")
    return None if not forecast else 1 if window is None else window


def _asked(
    statistics: LoadStatistics, cluster: Cluster, groups: int | None, steps: int | None, timing: options.Timing | None
) -> PlacementProblem:
    """Return what is asked: for the load, or for the forecast of the next window of so many steps; maybe in time."""
    from equipoise.forecasting import forecast
    from equipoise.problem import PlacementProblem

    load = statistics if steps is None else forecast(statistics.grouped(steps))
    problem = PlacementProblem(load, cluster, groups)
    if groups is not None and not problem.is_hierarchical:
        print(
            f"note: planned globally; {groups} groups are kept whole only on more than one node, "
            f"with as many groups on each, and --nodes is {cluster.num_nodes}.",
            file=sys.stderr,
        )
    return problem if timing is None else timing.asked(problem)


def _planned(
    problem: PlacementProblem, how: dict[str, Any], given: dict[str, Any], forecast: bool
) -> tuple[Plan, float]:
    """Return the plan, and the seconds that it took with compiled kernels."""
    from equipoise.solver import solve

    with progress("planning"):
        warm_up([how["strategy"]], how["backend"], how["threads"], given, problem, forecast=forecast)
        start = time.perf_counter()
        found = solve(problem, **how, **given)
        return found, time.perf_counter() - start


def _exit_if_missed(found: Plan, max_gap: float) -> None:
    gap = found.certificate.gap if found.time is None else found.time.gap.max(axis=0)
    if gap.max() > max_gap:
        print(
            f"missed: layer {int(gap.argmax())} has a gap of {ratio(float(gap.max()))}, "
            f"above the --max-gap of {ratio(max_gap)}.",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def _print(found: Plan, statistics: LoadStatistics, elapsed: float, out: Path | None) -> None:
    print(found.summary())
    if statistics.empty_layers:
        print(f"{'no tokens':<13} in {options.layers(statistics.empty_layers)}")
    print(f"{'time':<13} {seconds(elapsed)}")
    if out is not None:
        print(f"{'written to':<13} {out}")


def _report(
    found: Plan, statistics: LoadStatistics, elapsed: float, max_gap: float | None, out: Path | None
) -> dict[str, Any]:
    return {
        "source": statistics.source,
        "num_layers": found.placement.num_layers,
        "num_logical_experts": found.placement.num_logical_experts,
        "num_ranks": found.cluster.num_ranks,
        "num_slots": found.cluster.num_slots,
        "empty_layers": list(statistics.empty_layers),
        "strategy": found.provenance.strategy,
        "seed": found.provenance.seed,
        "mean_balancedness": found.metrics.mean_balancedness,
        "worst_balancedness": found.metrics.worst_balancedness,
        "num_steps": statistics.num_windows,
        "realised_balancedness": None if found.steps is None else found.steps.mean_balancedness,
        "mean_gap": found.certificate.mean_gap,
        "max_gap": found.certificate.max_gap,
        "max_gap_asked_for": max_gap,
        "max_gap_met": None if max_gap is None else (found.time or found.certificate).max_gap <= max_gap,
        "time": None if found.time is None else _times(found.time),
        "binding": found.binding,
        "forecast": found.provenance.parameters.get("forecast"),
        "num_duplicates": int(found.metrics.num_duplicates.sum()),
        "seconds": elapsed,
        "written_to": None if out is None else str(out),
        "plan": json.loads(found.to_json()),
    }


def _times(time: TimeCertificate) -> dict[str, Any]:
    return {
        "latency": time.latency.to_dict(),
        "routed_per_step": list(time.routed_per_step),
        "mean_max_rank_time": time.mean_max_rank_time.tolist(),
        "mean_gap": time.mean_gap.tolist(),
        "max_gap": time.gap.max(axis=1).tolist(),
    }
