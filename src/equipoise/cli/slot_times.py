"""Microseconds against slots, as ``equipoise slots --gpu`` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from equipoise.cli import options
from equipoise.cli.bars import bar
from equipoise.cli.console import print_json, progress, results, show, show_table
from equipoise.errors import counted

if TYPE_CHECKING:
    from equipoise.advice import SlotTimes
    from equipoise.load import LoadStatistics
    from equipoise.models import Model
    from equipoise.problem import PlacementProblem

__all__ = ["show_times", "weights_of"]

SHAPE = "deepseek-v3"  # that the presets are of


def weights_of(bytes_per_expert: float | None, model: Model | None) -> tuple[float, str]:
    """Return the bytes of an expert, as given, those of the model or of the presets' shape, and where they are from."""
    from equipoise.models import find_model

    assumed = find_model(SHAPE) if model is None else model
    given = float(assumed.bytes_per_expert) if bytes_per_expert is None else bytes_per_expert
    said = "as given" if bytes_per_expert is not None else f"as {assumed.name}'s in {assumed.format.name}"
    ask = "; --model or --bytes-per-expert says another" if bytes_per_expert is None and model is None else ""
    return given, f"{given / 1e6:.1f} MB an expert, {said}{ask}"


def show_times(
    problem: PlacementProblem,
    timing: options.Timing,
    asked: dict[str, Any],
    statistics: LoadStatistics,
    weights: str,
    as_json: bool,
) -> None:
    """Plan ``problem`` with ever more slots and show what a layer takes; ``asked`` goes to ``slot_times``.

    ``weights`` says where the bytes of an expert are from.
    """
    from equipoise.advice import slot_times

    timing.asked(problem)  # refuses what no step can be
    with progress("planning"):
        times = slot_times(problem, timing.latency, timing.tokens_per_rank, timing.top_k, **asked)
    if as_json:
        print_json({"source": statistics.source, **_report(problem, times)})
        return
    console = results()
    empty = len(statistics.empty_layers) if len(statistics.empty_layers) < problem.num_layers else 0
    show(
        console,
        f"{counted(problem.num_layers - empty, 'layer')} x {problem.num_logical_experts} experts on "
        f"{counted(problem.cluster.num_ranks, 'rank')}, top {timing.top_k}; expected microseconds of the "
        "busiest rank,\nmean of layers: with dormant replicas / all replicas active\n",
    )
    _print_table(times)
    show(console, f"\n{times.describe()}")
    show(console, f"model: {timing.latency.describe()}\nbytes: {weights}")
    if empty:
        show(console, f"left out: {options.layers(statistics.empty_layers)}, without tokens")


def _print_table(times: SlotTimes) -> None:
    from rich import box
    from rich.table import Table

    console = results()
    plain = console.options.ascii_only
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("tokens\na rank", "\nslots", "\nredundant", "GB more\na rank", "us a layer\nplanned / all active"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("\n0  planned", no_wrap=True)
    largest = max(float(point.active.max()) for point in times.points)
    for at, size in enumerate(times.tokens_per_rank):
        for point in times.points:
            more = "-" if point.extra_bytes is None else f"{point.extra_bytes / 1e9:.1f}"
            table.add_row(
                f"{size:g}" if point is times.points[0] else "",
                f"{point.num_slots:,}",
                f"{point.num_redundant_experts:,}",
                more,
                f"{point.active[at]:.1f} / {point.everything[at]:.1f}",
                bar(float(point.active[at]), largest, 16, plain),
                style="green" if point is times.recommended else None,
            )
    show_table(console, table)


def _report(problem: PlacementProblem, times: SlotTimes) -> dict[str, Any]:
    return {
        "num_layers": problem.num_layers,
        "num_logical_experts": problem.num_logical_experts,
        "num_ranks": problem.cluster.num_ranks,
        "latency": times.latency.to_dict(),
        "tokens_per_rank": list(times.tokens_per_rank),
        "recommended_slots": times.recommended.num_slots,
        "break_even_tokens_per_rank": times.break_even,
        "advice": times.describe(),
        "points": [
            {
                "num_slots": point.num_slots,
                "num_redundant_experts": point.num_redundant_experts,
                "microseconds": point.active.tolist(),
                "microseconds_all_active": point.everything.tolist(),
                "extra_bytes_per_rank": point.extra_bytes,
            }
            for point in times.points
        ],
    }
