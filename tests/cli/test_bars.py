from __future__ import annotations

import io

import pytest
from rich.console import Console

from equipoise.cli.bars import bar, columns, outline, ratio, seconds


def test_a_bar_is_as_long_as_its_share() -> None:
    assert [bar(value, 8, 8) for value in (0, 1, 8)] == ["", "█", "████████"]
    assert bar(0.5, 8, 8) == "▌"
    assert bar(5, 0, 8) == ""
    assert bar(4, 8, 8, plain=True) == "####"


@pytest.mark.parametrize("number", [1, 7, 16, 17, 256])
def test_an_outline_keeps_its_width_and_shows_the_largest_as_full(number: int) -> None:
    line = outline(list(range(number)), 16)
    assert len(line) <= 16
    assert line[-1] == ("█" if number > 1 else " ")


def chart(values: list[float], level: float, encoding: str = "utf-8", width: int = 80) -> list[str]:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width)
    return columns(values, level, console, rows_to_level=2).plain.splitlines()


def test_the_level_stands_at_the_same_height_in_every_chart() -> None:
    assert chart([1.0, 1.0], 1.0) == [" 1.0 ┤█ █", "     ┤█ █"]
    assert chart([2.0, 0.0], 1.0) == [" 2.0 ┤█", "     ┤█", " 1.0 ┤█", "     ┤█"]


def test_a_layer_without_load_is_drawn_empty() -> None:
    assert chart([0.0, 0.0], 0.0) == [" 1.0 ┤", "     ┤"]


def test_columns_close_up_where_they_would_not_fit() -> None:
    lines = chart([1.0] * 60, 1.0)
    assert max(map(len, lines)) == 66


def test_a_chart_is_plain_where_the_output_is() -> None:
    assert all(line.isascii() for line in chart([1.0, 0.6, 1.7], 1.0, encoding="ascii"))


def test_numbers_are_spelled_to_be_read() -> None:
    assert [seconds(s) for s in (0.0005, 0.0999, 0.9994, 9.94, 3600)] == [
        "0.5 ms",
        "100 ms",
        "999 ms",
        "9.9 s",
        "3600 s",
    ]
    assert [ratio(g) for g in (0, 1e-9, 0.001, 0.25)] == ["0 %", "1e-07 %", "0.1 %", "25 %"]
