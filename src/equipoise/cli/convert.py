"""``equipoise convert``: from one engine's file to another's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equipoise.cli import options
from equipoise.cli.console import print_json
from equipoise.cli.models import check_model, named_model
from equipoise.errors import EquipoiseError, InvalidInputError

if TYPE_CHECKING:
    from equipoise.engines.layered import LayeredPlacement
    from equipoise.load import LoadStatistics

__all__ = ["convert"]

Source = Annotated[
    Path,
    typer.Argument(
        metavar="IN", help="A load, a placement or a plan: any file that equipoise reads.", show_default=False
    ),
]
To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="NAME",
        help="Placements: sglang, sglang-pt, hygon, tensorrt-llm, vllm-ascend, omni-infer, deepseek. Loads: "
        "sglang-count, sglang-stat, sglang-per-pass, lmdeploy, tensorrt-llm-statistics, deepseek-load.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write, whole or not at all.")]
Ranks = Annotated[
    int | None, typer.Option("--ranks", metavar="N", help="EP ranks of a placement whose file does not say.")
]
TopK = Annotated[
    int | None,
    typer.Option("--experts-per-token", metavar="K", help="For tensorrt-llm-statistics, which says so too."),
]


def convert(
    source: Source,
    to: To,
    out: Out,
    ranks: Ranks = None,
    experts_per_token: TopK = None,
    first_layer: options.FirstLayer = None,
    skip_empty: options.SkipEmpty = False,
    mtp_layers: options.MtpLayers = 0,
    key: options.Key = None,
    model: options.ModelName = None,
    as_json: options.AsJson = False,
) -> None:
    """Write what one engine's file holds as another engine's file.

    \b
    equipoise convert balancer.yaml --to vllm-ascend --ranks 32 --out map.json
    equipoise convert expert_statistic/ --to sglang-count --out counts.json
    equipoise convert dump.pt --to deepseek-load --skip-empty --out weight.pt

    What IN is, is told by its content, and by --to where it could be both. What the other format cannot express is
    refused with the reason.
    """
    from equipoise.engines.formats import LOAD_FORMATS, find_load_format, find_placement_format, read_placement
    from equipoise.load import read_load

    # A name that is none is refused by itself; else the file is named, which may not be what it was taken for.
    (find_load_format if to in LOAD_FORMATS else find_placement_format)(to)
    known = named_model(model)
    experts_per_token = known.experts_per_token if known and experts_per_token is None else experts_per_token
    load = None
    if to in LOAD_FORMATS:  # what IN could be as well, --to decides
        with suppress(EquipoiseError):
            load = read_load(source, key=key, may_be_placement=True)
    placement = read_placement(source) if load is None else None
    if placement is not None:
        if skip_empty:
            raise InvalidInputError(f"{source} is a placement, which says nothing of tokens; leave out --skip-empty.")
        _write_placement(placement.with_ranks(ranks).starting_at(first_layer).with_draft_layers(mtp_layers), to, out)
    else:
        load = read_load(source, key=key, may_be_placement=True) if load is None else load
        if mtp_layers:
            raise InvalidInputError(f"{source} is a load, and draft layers have none here; leave out --mtp-layers.")
        if ranks is not None:
            raise InvalidInputError(f"{source} is a load, which is on no ranks; leave out --ranks.")
        check_model(known, load)
        _write_load(_named(load, first_layer, skip_empty), to, out, experts_per_token)
    if as_json:
        print_json({"to": to, "holds": "load" if placement is None else "placement", "written_to": str(out)})
    else:
        print(f"{'written to':<13} {out}")


def _write_placement(placement: LayeredPlacement, to: str, out: Path) -> None:
    """Write a placement, or say that the format is one of loads."""
    from equipoise.engines.formats import LOAD_FORMATS, PLACEMENT_FORMATS, save_placement

    if to in LOAD_FORMATS:
        raise InvalidInputError(
            f"{placement.source} is a placement, and {to} is a format for loads, which holds no placement; placements "
            f"go to {', '.join(PLACEMENT_FORMATS)}."
        )
    save_placement(placement, to, out)


def _write_load(load: LoadStatistics, to: str, out: Path, experts_per_token: int | None) -> None:
    """Write a load, or say that the format is one of placements."""
    from equipoise.engines.formats import LOAD_FORMATS, PLACEMENT_FORMATS, save_load

    if to in PLACEMENT_FORMATS:
        raise InvalidInputError(
            f"{load.source} is a load, and {to} is a format for placements, which holds no load; loads go to "
            f"{', '.join(LOAD_FORMATS)}."
        )
    save_load(load, to, out, experts_per_token=experts_per_token)


def _named(load: LoadStatistics, first_layer: int | None, skip_empty: bool) -> LoadStatistics:
    """Return the load without empty layers, if asked, and with its layers counted from ``first_layer``, if given."""
    import dataclasses

    import numpy as np

    from equipoise.engines.layered import shifted

    keep = np.setdiff1d(np.arange(load.num_layers), load.empty_layers if skip_empty else ())
    ids = tuple(load.layer_ids[i] for i in keep)
    return dataclasses.replace(
        load, tokens_per_expert=load.tokens_per_expert[:, keep], layer_ids=shifted(ids, first_layer)
    )
