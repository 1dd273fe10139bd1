"""What is in a load, and how it drifts, as a page."""

from __future__ import annotations

import numpy as np

from equipoise.load import LoadStatistics
from equipoise.pages import charts, html
from equipoise.traces.drift import Drift

__all__ = ["page"]

MOST_POINTS = 240


def page(statistics: LoadStatistics, drift: Drift) -> str:
    """Return the whole page, one HTML file without a script.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not there to draw with.
    """
    tokens = float(statistics.tokens_per_layer.sum())
    rows = [
        ("load", statistics.source),
        ("shape", f"{statistics.num_layers} layers x {statistics.num_logical_experts} experts"),
        ("windows", f"{drift.num_windows:,}, each of {drift.window:,} steps; {drift.num_idle:,} without a token"),
        ("tokens", f"{tokens:,.0f}, counted once for each expert that they were routed to"),
    ]
    pictures = [_skew_of_layers(statistics)]
    answer = []
    if drift.num_windows > 1:
        pictures += [_skew_over_time(drift), _apart(drift)]
        answer = [
            f"A window stays representative for {drift.representative} windows: beyond what sampling explains, at most "
            "a tenth of the tokens goes elsewhere."
        ]
    parts = [
        *([html.answer(answer)] if answer else []),
        html.section("What was read", [html.facts(rows)]),
        html.section("Pictures", [html.figure(picture) for picture in pictures]),
    ]
    return html.document(f"What is in {statistics.source}", parts)


def _skew_of_layers(statistics: LoadStatistics) -> html.Figure:
    svg = charts.bars({"hottest / mean": statistics.skew.tolist()}, "layer", "hottest / mean expert", 1.0)
    most = int(statistics.skew.argmax())
    text = f"Layer {most} is most skewed: its hottest expert gets {statistics.skew[most]:.2f} times the mean."
    return html.Figure("Skew of each layer over all windows", text, svg)


def _skew_over_time(drift: Drift) -> html.Figure:
    parts = np.array_split(np.arange(len(drift.skew)), min(len(drift.skew), MOST_POINTS))
    x, y = [float(part.mean()) for part in parts], [float(drift.skew[part].mean()) for part in parts]
    svg = charts.lines({"hottest / mean expert": (x, y)}, "window", "hottest / mean")
    text = f"From {drift.skew.min():.2f} to {drift.skew.max():.2f}, mean of layers."
    return html.Figure("Skew over time", text, svg)


def _apart(drift: Drift) -> html.Figure:
    known = ~np.isnan(drift.variation)
    lags = [float(lag) for lag, is_known in zip(drift.lags, known, strict=True) if is_known]
    curves = {
        "correlation": (lags, drift.correlation[known].tolist()),
        "total variation": (lags, drift.variation[known].tolist()),
        "total variation by sampling alone": (lags, drift.noise[known].tolist()),
    }
    svg = charts.lines(curves, "windows apart", "mean of layers and pairs", dots=True)
    last = lags[-1] if lags else 0
    text = (
        f"One window apart the loads correlate {drift.correlation[0]:.3f}, {last:.0f} windows apart "
        f"{drift.correlation[known][-1]:.3f}; total variation is {drift.variation[0]:.3f} and "
        f"{drift.variation[known][-1]:.3f}."
        if lags
        else "No two windows have tokens."
    )
    return html.Figure("How alike windows are, the farther apart they lie", text, svg)
