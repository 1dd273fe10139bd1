"""Compile what an engine's first plan needs, before an engine waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np

from equipoise.engines.planning import describe, plan_next
from equipoise.engines.sentences import balances
from equipoise.engines.settings import Settings

__all__ = ["tasks", "warm_up"]


def warm_up(strategies: Iterable[str | None] = (None,)) -> None:
    """Plan a few tiny problems as an engine would, by each of ``strategies``; None is the default one.

    What is compiled stays on disk, so that another process finds it: in the folder that ``NUMBA_CACHE_DIR`` names, else
    beside this package, else in the user's own cache.
    """
    for _, run in tasks(strategies):
        run()


def tasks(strategies: Iterable[str | None]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what ``warm_up`` runs, one strategy after the other, each with a name."""
    for strategy in strategies:
        yield f"plug-ins, {strategy or 'default'}", partial(_plan_as_engines_do, strategy)


def _plan_as_engines_do(strategy: str | None) -> None:
    # Small, but with a layer of zeros, spare slots, groups, and a placement in force of another shape, so that all
    # loops are met. Natively compiled code depends on the kinds of arrays, and on their shapes only in that ranks of
    # two slots, of three, of more, and of more where ranks are many, each have code of their own.
    load = np.array([[9.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0], [0.0] * 8, [5.0, 5.0, 4.0, 3.0, 9.0, 1.0, 1.0, 2.0]])
    current = np.tile(np.arange(16) % 8, (3, 1))
    shared = Settings(strategy=strategy, shares=True)
    told = Settings(strategy=strategy), Settings(strategy=strategy, min_gain=0.0), shared
    limited = Settings(strategy=strategy, max_transfers=2, max_transfers_total=4)
    for groups, nodes in ((1, 1), (4, 2), (3, 2)):
        for held in (None, current[:, :12], current):
            for settings in (*told, limited):
                found = plan_next(load, 12, groups, nodes, 4, settings, held)
                describe(found)
                balances(found)
    for slots, ranks in ((12, 6), (12, 2), (512, 128)):
        describe(plan_next(load, slots, 1, 1, ranks, told[0]))
    windows = np.stack([load, load[:, ::-1], load, 2 * load, load[:, ::-1], load, load])
    for held in (None, current[:, :12]):
        describe(plan_next(windows, 12, 1, 1, 4, told[0], held))
