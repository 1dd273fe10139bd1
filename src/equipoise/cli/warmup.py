"""``equipoise warmup``: compile the kernels now, so that no engine waits for that."""

from __future__ import annotations

import sys
import time

from equipoise.cli import options
from equipoise.cli.bars import seconds
from equipoise.cli.console import patiently, print_json

__all__ = ["warmup"]


def warmup(as_json: options.AsJson = False) -> None:
    """Compile all kernels that an engine's plug-in calls, and keep them on disk.

    \b
    equipoise warmup
    NUMBA_CACHE_DIR=/var/cache/equipoise equipoise warmup     where the package's own folder is read-only

    Run it once where the engine will run, as the same user or as root, for instance when its image is built. The
    first plan of an engine then takes milliseconds instead of seconds. What is kept is run: a folder that others
    can write to is not used.
    """
    from equipoise.engines.warming import warm_up
    from equipoise.strategies import STRATEGIES

    def explain() -> None:
        print("compiling kernels", file=sys.stderr, flush=True)

    start = time.perf_counter()
    with patiently(explain):
        warm_up([None, *STRATEGIES])
    elapsed = time.perf_counter() - start
    if as_json:
        print_json({"strategies": list(STRATEGIES), "seconds": elapsed})
    else:
        print(f"kernels for {', '.join(STRATEGIES)} are compiled, {seconds(elapsed)}")
