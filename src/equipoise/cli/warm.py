"""Compile the kernels before the clock starts: they turn native at their first call, which is no planning time."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from equipoise.cli.console import patiently

if TYPE_CHECKING:
    from equipoise.problem import PlacementProblem

__all__ = ["remark_on_compiling", "warm_up"]


def warm_up(
    strategies: Iterable[str],
    backend: str = "auto",
    threads: int | None = None,
    parameters: dict[str, Any] | None = None,
    problem: PlacementProblem | None = None,
) -> None:
    """Plan a tiny problem by each of ``strategies``, and say so on stderr if that takes a while.

    The first run on a machine compiles, which takes a minute at most; later ones find the result on disk. Where
    ``problem`` is given it is planned instead, and only what it needs is compiled.
    """
    import numpy as np

    from equipoise.problem import Cluster, PlacementProblem
    from equipoise.solver import solve

    # Small, but with a layer of zeros, spare slots, groups and duplicates to move, so that all loops are met.
    # Two slots a rank have code of their own, and so have three, more, more on many ranks, and no spare slots.
    load = np.array([[9.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0], [0.0] * 8])
    tiny = (
        PlacementProblem(load, Cluster(num_ranks=4, slots_per_rank=3)),
        PlacementProblem(load, Cluster(num_ranks=5, slots_per_rank=2)),
        PlacementProblem(load, Cluster(num_ranks=2, slots_per_rank=4)),
        PlacementProblem(load[:1], Cluster(num_ranks=128, slots_per_rank=4)),
        PlacementProblem(load, Cluster(num_ranks=4, slots_per_rank=3, num_nodes=2), num_expert_groups=4),
    )
    problems = tiny if problem is None else (problem,)

    with remark_on_compiling():
        for strategy in strategies:
            for each in problems:
                solve(each, strategy, backend=backend, threads=threads, **(parameters or {}))


def remark_on_compiling() -> AbstractContextManager[None]:
    """Say on stderr that kernels are compiled if what follows takes a while."""
    return patiently(lambda: print("compiling kernels (first run only)", file=sys.stderr, flush=True))
