"""How errors quote a value, whatever it is and whoever wrote it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from equipoise.errors import LONGEST, listed, shown


class Raises:
    def __repr__(self) -> str:
        raise RuntimeError


def laughs(levels: int) -> Any:
    value: Any = "ha"
    for _ in range(levels):
        value = [value] * 10
    return value


def inside_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


VALUES = {
    "a billion texts": laughs(30),
    "a list in itself": inside_itself(),
    "a text": "x" * 10**8,
    "a number": 10**10**6,
    "a negative number": -(10**5000),
    "numbers": [10**5000] * 3,
    "a repr that raises": Raises(),
    "reprs that raise": [Raises()],
    "an array": np.zeros((1000, 1000)),
    "an array of lists": np.array([[[0]], None], dtype=object),
    "keys": {i: {"x" * 1000: i} for i in range(10**5)},
    "escapes": "\x1b[2J\n\r\ud800\u202e",
    "bytes": b"\xff" * 1000,
    "lines": type("Lines", (), {"__repr__": lambda _: "a\n\nb"})(),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
def test_any_value_is_quoted_in_a_short_line(value: Any) -> None:
    text = shown(value)
    assert len(text) <= LONGEST
    assert text.isprintable()


@pytest.mark.parametrize("value", [None, True, 3, -2.5, "it's", b"x", [1, "a"], {"a": 1}, {1}, [], {}])
def test_a_short_value_is_quoted_as_python_writes_it(value: Any) -> None:
    assert shown(value) == repr(value)


def test_a_list_of_values_ends_with_how_many_are_left_out() -> None:
    assert listed(range(3)) == "0, 1, 2"
    assert listed("abc", most=2) == "'a', 'b' and 1 more"
    assert listed([]) == "none"
