"""The table of commands, and what happens when one of them cannot go on."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from equipoise import __version__
from equipoise.cli.compare import compare
from equipoise.cli.convert import convert
from equipoise.cli.demo import demo
from equipoise.cli.doctor import doctor
from equipoise.cli.evaluate import evaluate
from equipoise.cli.export import export
from equipoise.cli.inspect import inspect
from equipoise.cli.latency import latency
from equipoise.cli.models import models
from equipoise.cli.plan import plan
from equipoise.cli.replan import replan
from equipoise.cli.replay import replay
from equipoise.cli.slots import slots
from equipoise.cli.warm import for_any_processor
from equipoise.cli.warmup import warmup
from equipoise.cli.words import in_options
from equipoise.errors import EquipoiseError

__all__ = ["COMMANDS", "app"]

COMMANDS: tuple[Callable[..., None], ...] = (
    plan,
    replan,
    replay,
    inspect,
    compare,
    evaluate,
    slots,
    latency,
    demo,
    models,
    doctor,
    export,
    convert,
    warmup,
)
"""A new command is a file beside this one and a place in this row; its name is the function's."""


class _Notes(logging.Handler):
    """Prints what the library has to say, a line each, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"note: {in_options(record.getMessage())}", file=sys.stderr, flush=True)


@contextmanager
def _notes() -> Iterator[None]:
    log, handler = logging.getLogger("equipoise"), _Notes(logging.INFO)
    before = log.propagate, log.level
    log.propagate, log.level = False, logging.INFO
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate, log.level = before


class _Sentences(TyperGroup):
    """Ends a command that was used wrongly with one sentence on stderr and exit code 2, never with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        try:
            with _notes():
                return super().invoke(ctx)
        except EquipoiseError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            known = [option for each in (command.params if command else ()) for option in each.opts]
            reason = in_options(str(error), known)
        except MemoryError:
            reason = "this needs more memory than there is. Plan for fewer layers, slots or ranks at a time."
        print(f"error: {reason}", file=sys.stderr)
        raise typer.Exit(2)


app = typer.Typer(
    cls=_Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"equipoise {__version__}")
        raise typer.Exit


@app.callback(
    help="Decide where the experts of a Mixture-of-Experts model live, and prove how good that is."
    "\n\nStart with [bold]equipoise demo[/bold], which needs no arguments. With counts of tokens per expert at hand: "
    "[bold]equipoise inspect LOADS[/bold], then [bold]equipoise plan LOADS --ranks 32 --slots 288[/bold].",
    epilog="Results go to stdout, progress to stderr. "
    "Exit codes: 0 done, 1 done but something asked for is missed, 2 wrong use or bad input.",
)
def _equipoise(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


QUICK = (inspect, doctor, convert, models)
"""Commands that compile nothing."""


def _for_any_processor(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command compile for all processors of this one's family, which must be said before any kernel is made."""

    @functools.wraps(command)
    def run(*words: Any, **options: Any) -> None:
        """Run the command."""
        for_any_processor()
        command(*words, **options)

    return run


for _command in COMMANDS:
    app.command()(_command if _command in QUICK else _for_any_processor(_command))
