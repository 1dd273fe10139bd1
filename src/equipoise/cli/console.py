"""Results on stdout; progress and remarks on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["PATIENCE", "WIDTH", "advancing", "patiently", "print_json", "progress", "results", "show", "show_table"]

WIDTH = 100  # columns; wider tables are harder to read, not easier
PATIENCE = 1.0  # seconds that may pass in silence


def results() -> Console:
    """Return the console for results: stdout, colours only on a terminal and never with NO_COLOR."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    if console.width > WIDTH:
        console.width = WIDTH
    return console


def show(console: Console, text: str) -> None:
    """Print text as it stands: no markup, no wrapping."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_table(console: Console, table: Table) -> None:
    """Print a table whole: where the terminal is too narrow its lines go on below, and no number is cut."""
    from rich.measure import Measurement

    def needed() -> int:
        """Return how wide a row is at least."""
        wide = console.options.update(width=10 * WIDTH, max_width=10 * WIDTH)
        return Measurement.get(console, wide, table).maximum

    if needed() > console.width:
        table.padding = 0
    console.width = max(console.width, needed())
    console.print(table, crop=False, overflow="ignore")


def print_json(value: Any) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value))


@contextmanager
def patiently(start: Callable[[], None]) -> Iterator[None]:
    """Call ``start`` once if the block takes longer than ``PATIENCE``; never after it has ended."""
    ending = Lock()
    ended = False

    def begin() -> None:
        """Start, if the end has not come first."""
        with ending:
            if not ended:
                start()

    timer = Timer(PATIENCE, begin)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with ending:
            ended = True


@contextmanager
def advancing(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar with the time left on stderr while the block runs, once it takes longer than ``PATIENCE``.

    Yields a function to call with what is done and all there is. Nothing is shown unless stderr is a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    times = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    bar = Progress(*columns, *times, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=None)
    with patiently(bar.start):
        try:
            yield lambda done, total: bar.update(task, completed=done, total=total)
        finally:
            bar.stop()


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Show a progress bar on stderr while the block runs, once it takes longer than ``PATIENCE``.

    Yields a function to call at the start of each of ``total`` steps, with what it does; without
    ``total`` the bar only shows that work goes on. Nothing is shown unless stderr is a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        *([TextColumn("left"), TimeRemainingColumn()] if total else []),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(what, total=total)
    begun = 0

    def step(description: str) -> None:
        """Note how much is done."""
        nonlocal begun
        bar.update(task, description=f"{what}: {description}", completed=begun)
        begun += 1

    with patiently(bar.start):
        try:
            yield step
        finally:
            bar.stop()
