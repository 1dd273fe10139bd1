"""The kinds of picture that reports have, each from plain numbers to SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.pages.pictures import COLOURS, draw

__all__ = ["bars", "heat", "lines", "points"]

DASHES = ("-", "--", "-.", ":")  # told apart without colour too


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    dots: bool = False,
    doubling: bool = False,
) -> str:
    """Return curves by name, each x and y; ``marks`` are level lines with a name, ``doubling`` makes x logarithmic."""

    def paint(axes: Any) -> None:
        """Draw a line for each name."""
        for i, (name, (x, y)) in enumerate(curves.items()):
            marker = "o" if dots else None
            axes.plot(
                x, y, DASHES[i // 7 % 4], color=_colour(i), label=name, linewidth=1.6, marker=marker, markersize=4
            )
        for level, name in marks:
            axes.axhline(level, color=COLOURS["soft"], linewidth=1, linestyle=":")
            axes.annotate(
                name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9,
                color=COLOURS["soft"],
            )  # fmt: skip
        if doubling:
            axes.set_xscale("log", base=2)
            places = sorted({each for x, _ in curves.values() for each in x})
            axes.set_xticks(places, [f"{each:g}" for each in places])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)

    rows = (len(curves) + 1) // 2
    return draw(paint, height=3.3 + 0.2 * rows)


def bars(groups: Mapping[str, Sequence[float]], x_label: str, y_label: str, level: float | None = None) -> str:
    """Return bars side by side, for each name one at each place; ``level`` is a line across."""

    def paint(axes: Any) -> None:
        """Draw bars side by side."""
        width = 0.84 / len(groups)
        for i, (name, heights) in enumerate(groups.items()):
            at = np.arange(len(heights)) + (i - (len(groups) - 1) / 2) * width
            axes.bar(at, heights, width, color=_colour(i), label=name)
        if level is not None:
            axes.axhline(level, color=COLOURS["ink"], linewidth=1, linestyle="--")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(False, axis="x")
        if len(groups) > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)

    return draw(paint)


def heat(
    values: NDArray[np.float64], x_label: str, y_label: str, of: str, extent: tuple[float, float], least: float
) -> str:
    """Return rows of cells, [rows, columns], dark at ``least`` and light at 1; NaN stays empty.

    ``extent`` is what the columns span.
    """

    def paint(axes: Any) -> None:
        """Draw a table as colours."""
        rows = len(values)
        shown = axes.imshow(
            values, aspect="auto", interpolation="nearest", cmap="viridis", vmin=min(least, 0.999), vmax=1.0,
            extent=(extent[0], extent[1], rows - 0.5, -0.5),
        )  # fmt: skip
        axes.grid(False)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        scale = axes.figure.colorbar(shown, ax=axes, label=of, fraction=0.05)
        scale.outline.set_edgecolor(COLOURS["line"])

    return draw(paint, height=2.6 + min(2.4, 0.04 * len(values)))


def points(
    groups: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    marked: tuple[float, float, str] | None = None,
    diagonal: bool = False,
) -> str:
    """Return points by name, each x and y; ``marked`` is one of them with a name beside it."""
    shapes = "osD^vP*X"

    def paint(axes: Any) -> None:
        """Draw named points."""
        for i, (name, (x, y)) in enumerate(groups.items()):
            axes.plot(x, y, shapes[i % 8], color=_colour(i), label=name, markersize=6)
        if diagonal:
            ends = [min(*axes.get_xlim(), *axes.get_ylim()), 1.0]
            axes.plot(ends, ends, color=COLOURS["soft"], linewidth=1, linestyle=":")
        if marked is not None:
            axes.plot([marked[0]], [marked[1]], "o", markersize=13, fillstyle="none", color=COLOURS["ink"])
            axes.annotate(marked[2], marked[:2], xytext=(10, 8), textcoords="offset points", fontsize=9)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=9)

    return draw(paint, height=3.3 + 0.2 * ((len(groups) + 1) // 2))


def _colour(i: int) -> str:
    return COLOURS[f"c{i % 8}"]
