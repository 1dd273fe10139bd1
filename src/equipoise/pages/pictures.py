"""Pictures as SVG that takes its colours from the page, so that one file serves light, dark and paper.

matplotlib draws them: it is the plotting library that most of the field's Python has already, well kept, and it writes
plain SVG with real text, small and printable, that needs no script in the page. Colours are drawn as numbers of their
own and then written as the page's names for them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from equipoise.errors import MissingDependencyError

__all__ = ["COLOURS", "check_plotting", "draw"]

COLOURS = {
    "ink": "#010101", "soft": "#020202", "line": "#030303", "page": "#040404",
    **{f"c{i}": f"#0{i}0{i}0a" for i in range(8)},
}  # fmt: skip
"""What matplotlib is told, by the page's names; no other colour of a picture may be one of these."""

SETTINGS = {
    "svg.fonttype": "none",  # text stays text: readable aloud, and small
    "svg.hashsalt": "equipoise",  # the same picture is the same bytes
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.grid": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.5,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["soft"],
    "ytick.color": COLOURS["soft"],
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "path.simplify": True,
}


def check_plotting() -> None:
    """Insist that pictures can be drawn.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not there.
    """
    _matplotlib()


def draw(paint: Callable[[Any], None], width: float = 7.2, height: float = 3.2) -> str:
    """Return the SVG that ``paint`` draws on a set of axes, ``width`` by ``height`` inches."""
    matplotlib = _matplotlib()
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.subplots())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _themed(stream.getvalue())


def _themed(svg: str) -> str:
    """Return only the picture, with the page's colours and nothing that points elsewhere."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", svg).strip()


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependencyError(
            "a report needs matplotlib for its pictures; install it with: pip install 'equipoise[report]'."
        ) from error
    return matplotlib
