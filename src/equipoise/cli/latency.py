"""``equipoise latency``: what tokens cost in time: presets, fits and measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli import options
from equipoise.cli.bars import bar
from equipoise.cli.console import print_json, progress, results, show, show_table
from equipoise.errors import InvalidInputError

if TYPE_CHECKING:
    from equipoise.latency import LatencyModel

__all__ = ["latency"]

CURVE = (0.25, 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512)
"""Mean tokens of a replica at which a curve is drawn."""

What = Annotated[
    str | None,
    typer.Argument(
        metavar="[TABLE.csv|measure]",
        help="A CSV file of measured times to fit, or [bold]measure[/bold] to time this machine's CUDA device. Left "
        "out: the presets.",
        show_default=False,
    ),
]
Phase = Annotated[str, typer.Option("--phase", metavar="NAME", help="Of the presets: decode or prefill.")]
Hidden = Annotated[int | None, typer.Option("--hidden", metavar="N", help="Hidden size of the model. Left out: 7168.")]
Intermediate = Annotated[
    int | None, typer.Option("--intermediate", metavar="N", help="Intermediate size of an expert. Left out: 2048.")
]
BytesPerWeight = Annotated[
    float | None, typer.Option("--bytes-per-weight", metavar="X", help="Of the presets: 1 for fp8, 2 for bf16.")
]
Curve = Annotated[str | None, typer.Option("--curve", metavar="NAME", help="Draw this one only. Left out: the first.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="With measure: write the times there as CSV.")]


def latency(
    what: What = None,
    phase: Phase = "decode",
    hidden: Hidden = None,
    intermediate: Intermediate = None,
    bytes_per_weight: BytesPerWeight = None,
    curve: Curve = None,
    out: Out = None,
    as_json: options.AsJson = False,
) -> None:
    """List what tokens cost on known GPUs, fit measured times, or measure them on this machine.

    \b
    equipoise latency
    equipoise latency --hidden 4096 --intermediate 1536
    equipoise latency times.csv
    equipoise latency measure --out times.csv
    """
    if what != "measure" and out is not None:
        raise InvalidInputError("--out is for what is measured; write equipoise latency measure --out FILE.")
    if what == "measure":
        models = {"this device": _measured(hidden, intermediate, out)}
    elif what is not None:
        from equipoise.latency.table import fit_file

        models = {name or "fitted": model for name, model in fit_file(what).items()}
    else:
        from equipoise.latency import GPUS, LatencyModel

        shape: dict[str, Any] = {
            "hidden": hidden, "intermediate": intermediate, "bytes_per_weight": bytes_per_weight
        }  # fmt: skip
        models = {gpu: LatencyModel.preset(gpu, phase, **shape) for gpu in GPUS}
    drawn = next(iter(models)) if curve is None else curve
    if drawn not in models:
        raise InvalidInputError(f"--curve is {drawn!s:.80}; it must be one of {', '.join(models)}.")
    if as_json:
        print_json({"models": {name: model.to_dict() for name, model in models.items()}})
        return
    _show(models, drawn)


def _measured(hidden: int | None, intermediate: int | None, out: Path | None) -> LatencyModel:
    from equipoise.files import check_writable, write_atomically
    from equipoise.latency import LatencyModel
    from equipoise.latency.fit import COLUMNS
    from equipoise.latency.measure import ACTIVE, TOKENS, measure

    if out is not None:
        check_writable(out)
    with progress("measuring", total=len(ACTIVE) * len(TOKENS)) as step:
        table = measure(hidden or 7168, intermediate or 2048, step=step)
    if out is not None:
        rows = zip(*(table[name] for name in COLUMNS), strict=True)
        lines = [",".join(COLUMNS), *(",".join(f"{cell:.6g}" for cell in row) for row in rows)]
        write_atomically(out, "\n".join(lines) + "\n")
    return LatencyModel.fit(table, source="measured here")


def _show(models: dict[str, LatencyModel], drawn: str) -> None:
    from rich import box
    from rich.table import Table

    console = results()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("fixed", "floor", "base", "per token", "median error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, model in models.items():
        error = "estimate" if model.is_estimate else "-" if model.error is None else f"{model.error:.1%}"
        spelled = [f"{constant:.4g}" for constant in model.constants]
        table.add_row(name, *spelled, error)
    show(
        console,
        "A rank takes fixed + sum over slots with n tokens of max(floor, base + per token * n)\nmicroseconds.\n",
    )
    show_table(console, table)
    model, plain = models[drawn], console.options.ascii_only
    times = model.expected_slot_time([list(map(float, CURVE))])[0]
    show(console, f"\n{drawn}: expected microseconds of one replica against its mean tokens")
    for tokens, time in zip(CURVE, times.tolist(), strict=True):
        show(console, f"{tokens:>6g} {time:>8.2f}  {bar(time, float(times.max()), 40, plain)}")
    constants = ",".join(f"{constant:.4g}" for constant in model.constants)
    show(console, f"\nsource: {model.source}\nas an option: --gpu {constants}")
