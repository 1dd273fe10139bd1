"""A replay in lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from equipoise.traces.lanes import key_of
from equipoise.traces.settings import HEEDLESS

if TYPE_CHECKING:
    from equipoise.traces.recommend import Recommendation
    from equipoise.traces.result import Replay, Row

__all__ = ["advice", "assumptions", "ceilings", "cells", "distinct", "facts", "summary"]

COLUMNS = (
    ("planner", "planner"),
    ("slots", "slots"),
    ("every", "every"),
    ("max_transfers", "limit"),
    ("balancedness_mean", "mean"),
    ("balancedness_p10", "10 %"),
    ("balancedness_worst", "worst"),
    ("planned_mean", "planned"),
    ("realised_mean", "realised"),
    ("active_experts", "active"),
    ("transfers_per_window", "transfers"),
    ("moving_seconds_per_window", "moving s"),
    ("microseconds", "us"),
    ("net_microseconds", "net us"),
)
"""Fields of a row, and how they are called in a table; one that no row has is left out."""

FORMATS = {
    "slots": "{:,}", "every": "{:,}", "max_transfers": "{:,}", "active_experts": "{:.2f}",
    "transfers_per_window": "{:,.1f}", "moving_seconds_per_window": "{:.4f}", "microseconds": "{:,.1f}",
    "net_microseconds": "{:,.1f}",
}  # fmt: skip


def distinct(found: Replay) -> list[Row]:
    """Return the rows from best to worst, those of planners that heed no cadence and no limit once for each slots."""
    seen = set()
    rows = []
    for row in found.ranked():
        key = key_of(row.setting)
        if key not in seen:
            rows.append(row)
        seen.add(key)
    return rows


def cells(found: Replay) -> tuple[list[str], list[list[str]]]:
    """Return the headings of the table of settings, and its rows from best to worst."""
    rows = distinct(found)
    shown = [
        (name, heading)
        for name, heading in COLUMNS
        if name in ("planner", "every") or any(getattr(row, name) is not None for row in rows)
    ]
    return [heading for _, heading in shown], [[_cell(row, name) for name, _ in shown] for row in rows]


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if value is None or (row.planner in HEEDLESS and name in ("every", "max_transfers", "planned_mean")):
        return "-"
    return value if isinstance(value, str) else FORMATS.get(name, "{:.4f}").format(value)


def summary(found: Replay) -> str:
    """Return the settings as a table, the ceilings and what is recommended."""
    headings, rows = cells(found)
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    lines = [*(f"{name:<13} {text}" for name, text in facts(found)), ""]
    for row in [headings, *rows]:
        line = "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(line.rstrip())
        if row is headings:
            lines.append("─" * len(line))
    lines.append("")
    for slots, values in found.ceilings.items():
        lines.append(f"{'ceilings':<13} with {slots:,} slots: {ceilings(values)}")
    if found.recommendation is not None:
        lines += ["", *advice(found.recommendation)]
    return "\n".join(lines)


def ceilings(values: dict[str, float]) -> str:
    """Spell the ceilings for one number of slots."""
    return (
        f"{values['oracle']:.4f} for plans that know the window, {values['sampling']:.4f} for the same on another "
        "sample of its tokens, 1 for perfect balance"
    )


def facts(found: Replay) -> list[tuple[str, str]]:
    """Return what was replayed, by name."""
    asked, idle = found.asked, found.windows_idle
    left = found.num_steps - found.num_windows * asked.window
    groups = "" if asked.num_expert_groups is None else f", {asked.num_expert_groups} expert groups"
    nodes = "" if asked.cluster.num_nodes == 1 else f" on {asked.cluster.num_nodes} nodes"
    rows = [
        ("trace", found.source),
        ("shape", f"{found.num_steps:,} steps, {found.num_layers} layers x {found.num_logical_experts} experts"),
        (
            "windows",
            f"{found.windows_scored:,} scored of {found.windows_done:,}, each of {asked.window:,} "
            f"step{'' if asked.window == 1 else 's'}"
            + (f"; {idle:,} without a token are not" if idle else "")
            + (f"; {left:,} steps at the end fill none" if left else ""),
        ),
        ("cluster", f"{asked.cluster.num_ranks} ranks{nodes}{groups}"),
        ("plans from", "windows since the plan before" if asked.history is None else f"the last {asked.history}"),
    ]
    if asked.dispatch is not None:
        rows.append(("dispatch", asked.dispatch))
    if asked.latency is not None:
        rows.append(("latency", asked.latency.describe()))
    if found.interrupted:
        rows.append(("interrupted", f"after {found.windows_done:,} of {found.num_windows:,} windows"))
    return rows


def advice(found: Recommendation) -> list[str]:
    """Return what to run, how sure that is, and the flags."""
    unit = " us a step" if found.measure == "net_microseconds" else ""
    places = 1 if unit else 4
    lines = [f"{'recommended':<13} {found.best}: {found.measure} {found.value:.{places}f}{unit}"]
    if found.next_best is not None and found.gain is not None:
        error = "" if found.error is None else f" ± {found.error:.{places + 1}f}"
        verdict = "sure" if found.is_sure else "not sure: less than two standard errors"
        lines.append(f"{'next best':<13} {found.next_best}: worse by {found.gain:.{places + 1}f}{error}, {verdict}")
    if found.over_none is not None:
        lines.append(f"{'gain':<13} {found.over_none:.{places}f}{unit} over experts in order with as many slots")
    return lines + [f"{engine:<13} {flags}" for engine, flags in found.flags.items()]


def assumptions(found: Replay) -> list[str]:
    """Return what was assumed, a sentence each."""
    asked = found.asked
    past = "the windows since the plan before" if asked.history is None else f"the last {asked.history} windows"
    lines = [
        f"Each plan is made from {past}, and is in force in the windows that follow; the first from window 0. Window 0 "
        "itself is not scored, because nothing comes before it.",
        "Balancedness is mean / max rank load of a layer over a window, every replica taking an equal part; numbers of "
        "a window are means over its layers, and a layer without tokens counts as 1.",
        "All planners begin with experts in order, and all transfers count, those of the first plan too; first-window "
        "is loaded before serving goes on.",
        "The oracle knows each window before it comes, and what it moves is free: a ceiling, not a planner.",
        "Standard errors take windows for independent, which neighbours are not quite.",
    ]
    if asked.dispatch is not None:
        lines.append(
            f"Realised balancedness is of single steps, by the rule {asked.dispatch}; where the trace holds counts and "
            "no tokens, they are dealt to tokens at random, and tokens in equal parts to the ranks."
        )
    if asked.latency is not None:
        rule = "in equal parts, fractions too" if asked.dispatch is None else f"by the rule {asked.dispatch}"
        lines.append(
            f"Microseconds are of the experts alone, without communication: {asked.latency.describe()}. Each recorded "
            f"step is taken for one forward pass, its tokens going to replicas {rule}; a layer takes what its slowest "
            "rank takes."
        )
        if asked.bytes_per_expert is None:
            lines.append("Moving costs nothing in these times, because the bytes of an expert are not known.")
    if asked.bytes_per_expert is not None:
        links = asked.links
        lines.append(
            f"Moving {asked.bytes_per_expert:,} bytes an expert takes what links allow: {links.node:.3g} bytes a "
            f"second within nodes and {links.remote:.3g} between, and {links.latency:.3g} s a round; steps are "
            f"{asked.moving} meanwhile."
        )
    return lines
