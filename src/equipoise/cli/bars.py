"""Bars, columns and how numbers are spelled. All in text that stays readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["bar", "columns", "outline", "ratio", "seconds", "tokens"]

_ACROSS, _UP = " ▏▎▍▌▋▊▉█", " ▁▂▃▄▅▆▇█"  # eighths of a cell
_PLAIN_UP = " ..::||##"
_OVER, _WITHIN = "red", "green"


def bar(value: float, largest: float, width: int, plain: bool = False) -> str:
    """Return a bar of eighths of a cell, ``width`` cells long for ``largest``.

    >>> bar(3, 4, 6)
    '████▌'
    """
    eighths = round(8 * width * value / largest) if largest > 0 else 0
    whole, rest = divmod(eighths, 8)
    if plain:
        return "#" * round(eighths / 8)
    return _ACROSS[8] * whole + (_ACROSS[rest] if rest else "")


def outline(values: Sequence[float], width: int, plain: bool = False) -> str:
    """Return one line, ``width`` cells or fewer, that shows ``values`` in order against their largest.

    Each cell stands for equally many values and is as high as the largest of them.

    >>> outline([1, 2, 4, 8], 4)
    '▁▂▄█'
    """
    glyphs = _PLAIN_UP if plain else _UP
    together = -(-len(values) // width)
    tops = [max(values[i : i + together]) for i in range(0, len(values), together)]
    largest = max(tops)
    return "".join(glyphs[ceil(8 * top / largest) if largest > 0 else 0] for top in tops)


def columns(values: Sequence[float], level: float, console: Console, rows_to_level: int = 3) -> Text:
    """Draw one upright column for each value, and a scale at the left in units of ``level``.

    Parameters
    ----------
    values : sequence of float
        Not negative.
    level : float
        Drawn ``rows_to_level`` rows high, whatever the values: charts of the same level compare by eye.
        What stands above it is red.
    """
    from rich.text import Text

    cell = level / rows_to_level if level > 0 else 1.0
    eighths = [round(8 * value / cell) for value in values]
    num_rows = max(rows_to_level, -(-max(eighths) // 8))
    # Two characters a column where they fit, so that columns stay apart.
    gap = " " if 2 * len(values) + 6 <= console.width else ""
    glyphs = _PLAIN_UP if console.options.ascii_only else _UP
    axis = "|" if console.options.ascii_only else "┤"
    chart = Text()
    for row in range(num_rows - 1, -1, -1):
        mark = f"{(row + 1) / rows_to_level:4.1f}" if (row + 1) % rows_to_level == 0 else " " * 4
        line = gap.join(glyphs[min(max(height - 8 * row, 0), 8)] for height in eighths)
        chart.append(f"{mark} {axis}")
        chart.append(line.rstrip(), style=_OVER if row >= rows_to_level else _WITHIN)
        chart.append("\n" if row else "")
    return chart


def tokens(count: float) -> str:
    """Spell a number of tokens.

    >>> tokens(8388608), tokens(0.25), tokens(0)
    ('8,388,608', '0.25', '0')
    """
    return f"{count:,.0f}" if count == round(count) and count < 1e15 else f"{count:.4g}"


def ratio(gap: float) -> str:
    """Spell a gap as a percentage, with as many places as tell it from zero.

    >>> ratio(0.0), ratio(0.000123), ratio(1.6)
    ('0 %', '0.012 %', '160 %')
    """
    percent = 100 * gap
    return f"{percent:.0f} %" if percent >= 10 or percent < 1e-12 else f"{percent:.2g} %"


def seconds(time: float) -> str:
    """Spell a time.

    >>> seconds(0.00234), seconds(0.234), seconds(2.34), seconds(75.0)
    ('2.3 ms', '234 ms', '2.3 s', '75 s')
    """
    if time < 1:
        return f"{1e3 * time:.1f} ms" if time < 0.0995 else f"{1e3 * time:.0f} ms"
    return f"{time:.1f} s" if time < 10 else f"{time:.0f} s"
