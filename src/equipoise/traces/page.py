"""A replay as a page: what to run, every setting, and pictures of what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from equipoise.pages import charts, html
from equipoise.traces.lanes import key_of
from equipoise.traces.settings import HEEDLESS
from equipoise.traces.summary import advice, assumptions, ceilings, cells, distinct, facts

if TYPE_CHECKING:
    from equipoise.traces.result import Replay, Row

__all__ = ["fragment", "page"]

Floats = NDArray[np.float64]
MOST_CURVES, MOST_POINTS = 7, 240


def page(found: Replay) -> str:
    """Return the whole page, one HTML file without a script.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not there to draw with.
    """
    pictures = [picture for make in PICTURES for picture in make(found)]
    parts = [
        _answer(found),
        html.section("What was replayed", [html.facts(facts(found))]),
        html.section("Settings, the best first", [_table(found), *_ceilings(found)]),
        html.section("Pictures", [html.figure(picture) for picture in pictures]),
        html.section("What was assumed", [html.items(assumptions(found))]),
    ]
    return html.document(f"Replay of {found.source}", parts)


def fragment(found: Replay) -> str:
    """Return what a notebook shows: the answer and the table, without pictures."""
    return "\n".join([html.facts(facts(found)), _answer(found), _table(found)])


def _answer(found: Replay) -> str:
    if found.recommendation is None:
        return html.answer(["Nothing to recommend: only the oracle was replayed."])
    lines = advice(found.recommendation)
    number = len(found.recommendation.flags)
    spoken = [line[:14].strip().capitalize() + ": " + line[14:].strip() for line in lines[: len(lines) - number]]
    return html.answer(spoken, list(found.recommendation.flags.items()))


def _table(found: Replay) -> str:
    return html.table(*cells(found), "Balancedness mean, 10 % and worst are over windows; transfers are a window.")


def _ceilings(found: Replay) -> list[str]:
    return [
        html.paragraph(f"Ceilings with {slots:,} slots: {ceilings(values)}.", "soft")
        for slots, values in found.ceilings.items()
    ]


def _best_of_each(found: Replay) -> list[Row]:
    """Return the best row of each planner, in the order of the ranking."""
    best: dict[str, Row] = {}
    for row in distinct(found):
        best.setdefault(row.planner, row)
    return list(best.values())[:MOST_CURVES]


def _chosen(found: Replay) -> tuple[Row, Row]:
    """Return what pictures compare: experts in order, or else the last in the ranking, and what is recommended."""
    rows = distinct(found)
    best = rows[0]
    if found.recommendation is not None:
        best = next(row for row in found.rows if row.setting == found.recommendation.best)
    before = next((row for row in rows if row.planner == "none" and row.slots == best.slots), rows[-1])
    return before, best


def _over_time(found: Replay) -> list[html.Figure]:
    curves = {}
    for row in _best_of_each(found):
        values = found.series[key_of(row.setting)].balancedness
        curves[_name(row, found)] = _thinned(found.scored, values)
    svg = charts.lines(curves, "window", "balancedness", [(1.0, "perfect")])
    text = "; ".join(f"{_name(row, found)} {row.balancedness_mean:.4f} on average" for row in _best_of_each(found))
    return [html.Figure("Balancedness over time, the best setting of each planner", f"{text}.", svg)]


def _heat(found: Replay) -> list[html.Figure]:
    pictures = []
    chosen = _chosen(found)
    least_of_all = min(float(np.nanmin(found.series[key_of(row.setting)].by_layer)) for row in chosen)
    for row, when in zip(chosen, ("before", "after"), strict=True):
        values = found.series[key_of(row.setting)].by_layer.T
        svg = charts.heat(values, "window", "layer", "balancedness", (0, found.num_windows), least_of_all)
        by_layer = np.nanmean(values, axis=1)  # of stretches, each as long as the next or nearly
        least = int(by_layer.argmin())
        text = (
            f"Layer {least} is worst with {by_layer[least]:.4f} on average, and {by_layer.max():.4f} is the best layer."
        )
        pictures.append(html.Figure(f"Balancedness of each layer {when}: {_name(row, found)}", text, svg))
    return pictures


def _worst_layer(found: Replay) -> list[html.Figure]:
    groups, texts = {}, []
    for row in _chosen(found):
        score, window, layer, loads = found.series[key_of(row.setting)].worst
        if window >= 0:
            shares = np.sort(np.array(loads))[::-1] / max(float(np.mean(loads)), 1e-300)
            groups[_name(row, found)] = shares.tolist()
            texts.append(
                f"{_name(row, found)}: layer {layer} in window {window}, balancedness {score:.4f}, the busiest rank "
                f"with {shares[0]:.3f} times the mean"
            )
    if not groups:
        return []
    svg = charts.bars(groups, "ranks, the busiest first", "load / mean", 1.0)
    return [html.Figure("Rank loads of the worst layer", f"{'; '.join(texts)}.", svg)]


def _frontier(found: Replay) -> list[html.Figure]:
    rows = [row for row in distinct(found) if row.transfers_per_window is not None]
    if not rows:
        return []
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        x, y = groups.setdefault(row.planner, ([], []))
        x.append(row.transfers_per_window or 0.0)
        y.append(getattr(row, found.measure))
    x_all = [row.transfers_per_window or 0.0 for row in rows]
    y_all = [float(getattr(row, found.measure)) for row in rows]
    knee = knee_of(x_all, y_all, falling=found.measure == "net_microseconds")
    label = "net microseconds a step" if found.measure == "net_microseconds" else "balancedness"
    svg = charts.points(groups, "transfers a window, over all layers", label, (x_all[knee], y_all[knee], "knee"))
    text = (
        f"The knee, where more transfers begin to buy little: {rows[knee].setting} with {x_all[knee]:,.1f} transfers a "
        f"window and {found.measure} {y_all[knee]:.4f}."
    )
    return [html.Figure(f"Transfers against {label}", text, svg)]


def knee_of(x: Sequence[float], y: Sequence[float], falling: bool = False) -> int:
    """Return the point that lies farthest on the good side of the line from the fewest to the most useful transfers.

    >>> knee_of([0, 10, 100], [0.5, 0.9, 1.0])
    1
    """
    sign = -1.0 if falling else 1.0
    gain = sign * np.asarray(y, np.float64)
    cost = np.asarray(x, np.float64)
    first = int(np.lexsort((-gain, cost))[0])
    last = int(np.lexsort((cost, -gain))[0])
    across, up = cost[last] - cost[first], gain[last] - gain[first]
    if across <= 0 or up <= 0:
        return last
    height = (gain - gain[first]) / up - (cost - cost[first]) / across
    knee = int(height.argmax())
    return knee if height[knee] > 0 else last


def _by_slots(found: Replay) -> list[html.Figure]:
    sizes = sorted({row.slots for row in found.rows})
    if len(sizes) < 2:
        return []
    measure = "microseconds" if found.rows[0].microseconds is not None else "balancedness_mean"
    pick: Callable[..., float] = min if measure == "microseconds" else max
    curves = {}
    for planner in dict.fromkeys(row.planner for row in found.rows):
        here = [
            pick(getattr(row, measure) for row in found.rows if (row.planner, row.slots) == (planner, size))
            for size in sizes
        ]
        curves[planner] = ([float(size - found.num_logical_experts) for size in sizes], here)
    label = "microseconds a step" if measure == "microseconds" else "balancedness"
    svg = charts.lines(curves, "redundant slots in a layer", label, dots=True)
    text = "; ".join(f"{name} from {y[0]:.4f} to {y[-1]:.4f}" for name, (_, y) in curves.items())
    name = f"{label.capitalize()} against redundant slots, the best setting of each planner"
    return [html.Figure(name, f"{text}.", svg)]


def _planned_and_met(found: Replay) -> list[html.Figure]:
    rows = [row for row in distinct(found) if row.planner not in ("none", "oracle")]
    if not rows:
        return []
    realised = found.asked.dispatch is not None
    met = [
        float(row.realised_mean if realised and row.realised_mean is not None else row.balancedness_mean)
        for row in rows
    ]
    groups: dict[str, tuple[list[float], list[float]]] = {}
    for row, y in zip(rows, met, strict=True):
        group = groups.setdefault(row.planner, ([], []))
        group[0].append(row.planned_mean)
        group[1].append(y)
    what = f"realised in single steps by {found.asked.dispatch}" if realised else "met in the windows that followed"
    svg = charts.points(groups, "balancedness planned", "balancedness met", diagonal=True)
    best = max(range(len(rows)), key=lambda i: met[i])
    text = (
        f"{rows[best].setting} planned {rows[best].planned_mean:.4f} and came to {met[best]:.4f}; on the dotted line "
        "plans would keep what they promise."
    )
    return [html.Figure(f"Planned balancedness against what was {what}", text, svg)]


def _by_batch(found: Replay) -> list[html.Figure]:
    if not found.by_batch:
        return []
    curves = {}
    for slots in dict.fromkeys(each["slots"] for each in found.by_batch):
        here = [each for each in found.by_batch if each["slots"] == slots]
        curves[f"{slots:.0f} slots"] = (
            [each["tokens_per_rank"] for each in here],
            [each["microseconds"] for each in here],
        )
    svg = charts.lines(curves, "tokens a rank in a step", "microseconds a step", dots=True, doubling=True)
    sizes = [each["tokens_per_rank"] for each in found.by_batch]
    best = {
        size: min((e for e in found.by_batch if e["tokens_per_rank"] == size), key=lambda each: each["microseconds"])
        for size in (min(sizes), max(sizes))
    }
    text = "; ".join(
        f"at {size:g} tokens a rank {each['slots']:.0f} slots are fastest, {each['microseconds']:,.1f} us"
        for size, each in best.items()
    )
    return [html.Figure("Microseconds against batch, by slots", f"Expected, by what was last in force: {text}.", svg)]


PICTURES = (_over_time, _heat, _worst_layer, _frontier, _by_slots, _by_batch, _planned_and_met)


def _name(row: Row, found: Replay) -> str:
    several = len({each.slots for each in found.rows}) > 1
    return str(row.setting) if several or row.planner not in HEEDLESS else row.planner


def _thinned(x: NDArray[np.int64], y: Floats) -> tuple[list[float], list[float]]:
    """Return at most ``MOST_POINTS`` points, each the mean of equally many."""
    parts = np.array_split(np.arange(len(x)), min(len(x), MOST_POINTS))
    return [float(x[part].mean()) for part in parts], [float(y[part].mean()) for part in parts]
