"""``equipoise inspect``: what is in a load, before anything is decided about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli import options
from equipoise.cli.bars import bar, outline, tokens
from equipoise.cli.console import print_json, progress, results, show, show_table
from equipoise.cli.loads import read_trace, summed
from equipoise.errors import InvalidInputError, counted

if TYPE_CHECKING:
    from equipoise.load import LoadStatistics
    from equipoise.traces.drift import Drift

__all__ = ["inspect"]


Window = Annotated[
    int, typer.Option("--window", metavar="N", help="Steps of LOADS that are one window, for how the load drifts.")
]


def inspect(
    loads: options.Loads,
    key: options.Key = None,
    window: Window = 1,
    report: options.Report = None,
    as_json: options.AsJson = False,
) -> None:
    """Show layers, experts, tokens, how skewed each layer is, and of a trace of several windows how it drifts.

    \b
    equipoise inspect counts.json
    equipoise inspect steps.npz --key counts --window 10 --report drift.html
    """
    from equipoise.load import LoadStatistics
    from equipoise.traces.drift import drift_of

    options.check_report(report)
    trace = read_trace(loads, key)
    if window > max(trace.num_steps, 1):
        raise InvalidInputError(
            f"--window is {window}, and {trace.source} has {counted(trace.num_steps, 'step')}; name at most so many."
        )
    with progress("looking for drift"):
        drift = drift_of(trace, window)
    statistics = LoadStatistics(drift.load, trace.source, trace.layer_ids)
    layers = [_layer(statistics, layer) for layer in range(statistics.num_layers)]
    if report is not None:
        from equipoise.traces.drift_page import page

        options.write_report(report, page(statistics, drift))
    if as_json:
        print_json(
            {
                "source": statistics.source,
                "num_windows": trace.num_steps,
                "num_layers": statistics.num_layers,
                "num_logical_experts": statistics.num_logical_experts,
                "tokens": float(statistics.tokens_per_layer.sum()),
                "empty_layers": list(statistics.empty_layers),
                "layers": layers,
                "drift": drift.to_dict() if drift.num_windows > 1 else None,
                "written_to": None if report is None else str(report),
            }
        )
        return
    _print_table(statistics, layers, trace.num_steps)
    if drift.num_windows > 1:
        _print_drift(drift)
    if report is not None:
        print(f"\n{'written to':<9} {report}")


def _print_drift(drift: Drift) -> None:
    from rich import box
    from rich.table import Table

    console = results()
    plain = console.options.ascii_only
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("windows\napart", "\ncorrelation", "total variation\nmean", "\nby sampling"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = drift.to_dict()
    for lag, *numbers in zip(
        drift.lags, rows["correlation"], rows["total_variation"], rows["sampling_noise"], strict=True
    ):
        if None not in numbers:
            table.add_row(str(lag), *(f"{number:.3f}" for number in numbers))
    steps = "" if drift.window == 1 else f", each of {drift.window:,} steps"
    idle = f"; {drift.num_idle:,} without a token" if drift.num_idle else ""
    show(console, f"\n{'drift':<9} {drift.num_windows:,} windows{steps}{idle}\n")
    show_table(console, table)
    most = drift.lags[-1]
    for_long = f"at least {most}" if drift.representative == most else f"{drift.representative}"
    show(console, f"\na window stays representative for {for_long} windows: beyond sampling, at most a tenth of the")
    show(console, "tokens goes elsewhere.")
    width = 60 if console.width >= 80 else 40
    show(console, f"\nhottest / mean expert over time, {drift.skew.min():.2f} to {drift.skew.max():.2f}")
    show(console, outline(drift.skew.tolist(), width, plain))


def _layer(statistics: LoadStatistics, layer: int) -> dict[str, Any]:
    load = statistics.load[layer]
    empty = layer in statistics.empty_layers
    return {
        "layer": layer,
        "layer_id": statistics.layer_ids[layer],
        "tokens": float(load.sum()),
        "hottest_expert": None if empty else int(load.argmax()),
        "hottest_to_mean": None if empty else float(statistics.skew[layer]),
        "unused_experts": int((load == 0).sum()),
    }


def _print_table(statistics: LoadStatistics, layers: list[dict[str, Any]], num_windows: int) -> None:
    from rich import box
    from rich.table import Table

    console = results()
    plain = console.options.ascii_only
    show(console, f"{'load':<9} {statistics.source}")
    experts = statistics.num_logical_experts
    total = tokens(float(statistics.tokens_per_layer.sum()))
    show(console, f"{'shape':<9} {counted(len(layers), 'layer')} x {experts} experts{summed(num_windows)}")
    show(console, f"{'tokens':<9} {total}, counted once for each expert that they were routed to")
    if statistics.empty_layers:
        show(
            console, f"{'empty':<9} {options.layers(statistics.empty_layers)}: no tokens, as dense layers are recorded"
        )
    show(console, "")

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    own_ids = statistics.layer_ids != tuple(range(len(layers)))
    for heading in ("layer", *(["model id"] if own_ids else []), "tokens", "unused", "hottest"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("hottest / mean", no_wrap=True)
    table.add_column("experts in order", no_wrap=True)
    width = 6 if console.width < 72 else 16 if console.width < 90 else 30
    most = max((row["hottest_to_mean"] or 0.0) for row in layers)
    for row in layers:
        skew = row["hottest_to_mean"]
        table.add_row(
            str(row["layer"]),
            *([str(row["layer_id"])] if own_ids else []),
            tokens(row["tokens"]),
            str(row["unused_experts"]),
            "-" if skew is None else str(row["hottest_expert"]),
            "no tokens" if skew is None else f"{skew:6.2f} {bar(skew, most, 12, plain)}",
            outline(statistics.load[row["layer"]].tolist(), width, plain),
        )
    show_table(console, table)
