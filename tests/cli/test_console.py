from __future__ import annotations

import io
import time
from contextlib import redirect_stderr

import pytest

from equipoise.cli import console


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "PATIENCE", 0.02)


def test_what_is_quick_shows_no_bar() -> None:
    with redirect_stderr(Terminal()) as terminal, console.progress("planning", total=2) as step:
        step("one")
    assert terminal.getvalue() == ""


def test_what_takes_longer_shows_a_bar_on_a_terminal() -> None:
    with redirect_stderr(Terminal()) as terminal, console.progress("planning", total=2) as step:
        step("first")
        time.sleep(0.3)
        step("second")
        time.sleep(0.2)
    assert "planning: first" in terminal.getvalue()
    assert "planning: second" in terminal.getvalue()


def test_no_bar_is_shown_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("planning"):
        time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


def test_an_error_ends_the_bar_and_goes_on() -> None:
    def fail() -> None:
        with redirect_stderr(Terminal()), console.progress("planning"):
            time.sleep(0.1)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
