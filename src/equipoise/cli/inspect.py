"""``equipoise inspect``: what is in a load, before anything is decided about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from equipoise.cli import options
from equipoise.cli.bars import bar, outline, tokens
from equipoise.cli.console import print_json, results, show
from equipoise.cli.loads import read_loads, summed

if TYPE_CHECKING:
    from equipoise.load import LoadStatistics

__all__ = ["inspect"]


def inspect(loads: options.Loads, key: options.Key = None, as_json: options.AsJson = False) -> None:
    """Show layers, experts, tokens, and how skewed each layer is.

    \b
    equipoise inspect counts.json
    equipoise inspect steps.npz --key counts
    """

    statistics = read_loads(loads, key)
    layers = [_layer(statistics, layer) for layer in range(statistics.num_layers)]
    if as_json:
        print_json(
            {
                "source": statistics.source,
                "num_windows": statistics.num_windows,
                "num_layers": statistics.num_layers,
                "num_logical_experts": statistics.num_logical_experts,
                "tokens": float(statistics.tokens_per_layer.sum()),
                "empty_layers": list(statistics.empty_layers),
                "layers": layers,
            }
        )
        return
    _print_table(statistics, layers)


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


def _print_table(statistics: LoadStatistics, layers: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    console = results()
    plain = console.options.ascii_only
    show(console, f"{'load':<9} {statistics.source}")
    experts = statistics.num_logical_experts
    total = tokens(float(statistics.tokens_per_layer.sum()))
    show(console, f"{'shape':<9} {options.count_of(len(layers), 'layer')} x {experts} experts{summed(statistics)}")
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
    width = 16 if console.width < 90 else 30
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
    console.print(table)
