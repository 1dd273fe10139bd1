"""The command line: one file a command, and nothing here that the library could not do without it.

================  =========================================================================
file              idea
================  =========================================================================
``app.py``        the commands as a table, and how errors become one sentence and exit code 2
``options.py``    the words that several commands share, each written once
``console.py``    results on stdout; progress and errors on stderr
``bars.py``       bars, columns and how numbers are spelled
``contenders.py``  several ways to place the same problem, side by side
``warm.py``       kernels compiled before the clock starts, and for any processor of the family
``loads.py``      what a command is given as LOADS
``words.py``      errors in the words that were typed
``in_force.py``   the placement in a file, and the problem of the next one
the others        a command each
================  =========================================================================

Exit codes: 0 done; 1 done, but a ``--max-gap`` that was asked for is missed; 2 wrong use or bad input.
Commands import what they need when they run, so ``--help`` is quick.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the ``equipoise`` command with the arguments of this process, and exit with its code."""
    from equipoise.cli.app import app

    app(prog_name="equipoise")
