"""``equipoise models``: what ``--model`` fills in, and where it is from; and how commands take it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from equipoise.cli import options
from equipoise.cli.console import print_json, results, show, show_table
from equipoise.errors import InvalidInputError

if TYPE_CHECKING:
    from equipoise.load import LoadStatistics
    from equipoise.models import Model

__all__ = ["check_model", "groups_of", "models", "named_model"]


def models(as_json: options.AsJson = False) -> None:
    """Show what --model fills in for each model: experts, groups, top k, bytes per expert, and the source.

    \b
    equipoise models
    """
    from equipoise.models import MODELS

    if as_json:
        rows = [
            {**asdict(row), "bytes_per_expert": row.bytes_per_expert, "source": row.source} for row in MODELS.values()
        ]
        print_json({"models": rows})
        return
    from rich import box
    from rich.table import Table

    console = results()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("layers", "experts", "groups", "top k", "MB an expert"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("format", no_wrap=True)
    for row in MODELS.values():
        groups = "-" if row.num_expert_groups is None else str(row.num_expert_groups)
        size = f"{row.bytes_per_expert / 1e6:.1f}"
        numbers = (str(row.num_layers), str(row.num_experts), groups, str(row.experts_per_token), size)
        table.add_row(row.name, *numbers, row.format.name)
    show_table(console, table)
    show(console, "\nEach is read from the model's published configuration:")
    for row in MODELS.values():
        show(console, f"  {row.source}")


def named_model(name: str | None) -> Model | None:
    """Return the model that ``--model`` names, None if it was left out."""
    from equipoise.models import find_model

    return None if name is None else find_model(name)


def groups_of(model: Model | None, groups: int | None, nodes: int | None) -> int | None:
    """Return ``--groups``, else the groups of the model where there are several nodes to keep them on."""
    if groups is not None or model is None or not nodes or nodes == 1:
        return groups
    return model.num_expert_groups


def check_model(model: Model | None, statistics: LoadStatistics) -> None:
    """Insist that a load is one of the model: as many experts, and no more layers than it has with its dense ones."""
    if model is None:
        return
    if statistics.num_logical_experts != model.num_experts:
        raise InvalidInputError(
            f"{statistics.source} is of {statistics.num_logical_experts} experts, and {model.name} has "
            f"{model.num_experts}; leave out --model, or name the model that it is of."
        )
    with_tokens = statistics.num_layers - len(statistics.empty_layers)
    if with_tokens > model.num_layers + 1:  # a draft layer may be recorded too
        print(
            f"note: {statistics.source} has tokens in {with_tokens} layers, and {model.name} has {model.num_layers}.",
            file=sys.stderr,
        )
