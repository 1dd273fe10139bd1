"""``equipoise export``: from a plan to the file that an engine reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equipoise.cli import options
from equipoise.cli.console import print_json

__all__ = ["export"]

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan that [bold]equipoise plan --out[/bold] wrote.")]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="sglang, sglang-pt, hygon, tensorrt-llm, vllm-ascend, omni-infer or deepseek.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write, whole or not at all.")]


def export(
    plan: PlanFile,
    engine: Engine,
    out: Out,
    first_layer: options.FirstLayer = None,
    skip_empty: options.SkipEmpty = False,
    mtp_layers: options.MtpLayers = 0,
    as_json: options.AsJson = False,
) -> None:
    """Write a plan as the file that an engine reads.

    \b
    equipoise export plan.json --engine sglang --out map.json
    equipoise export plan.json --engine tensorrt-llm --first-layer 3 --out balancer.yaml

    vLLM reads no map; set EQUIPOISE_VLLM_PLAN=plan.json instead.
    """
    from equipoise.engines.formats import find_placement_format, save_placement
    from equipoise.engines.layered import LayeredPlacement
    from equipoise.plan import Plan

    find_placement_format(engine)
    loaded = Plan.load(plan)
    layered = LayeredPlacement.of_plan(loaded, str(plan))
    if skip_empty:
        layered = layered.select(loaded.metrics.mean_rank_load > 0)
    layered = layered.starting_at(first_layer).with_draft_layers(mtp_layers)
    save_placement(layered, engine, out)
    if as_json:
        print_json({"engine": engine, "num_layers": len(layered.layer_ids), "written_to": str(out)})
    else:
        print(f"{'written to':<13} {out}")
