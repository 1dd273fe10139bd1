"""Compile the kernels before the clock starts: they turn native at their first call, which is no planning time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equipoise.problem import PlacementProblem

__all__ = ["for_any_processor", "warm_up"]


def for_any_processor() -> str | None:
    """Compile in this process for every processor of this one's family; return for which, None if for this one."""
    from equipoise.kernels.target import use_baseline

    return use_baseline()


def warm_up(
    strategies: Iterable[str],
    backend: str = "auto",
    threads: int | None = None,
    parameters: dict[str, Any] | None = None,
    problem: PlacementProblem | None = None,
    forecast: bool = False,
) -> None:
    """Plan a tiny problem by each of ``strategies``; the log says so if something has to be compiled for that.

    The first run on a machine compiles; later ones find the result on disk. Where ``problem`` is given it is planned
    instead, and only what it needs is compiled. ``forecast`` says whether there is more to compile, for plans on
    forecasts.
    """
    import numpy as np

    from equipoise.forecasting import forecast as foresee
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
    if forecast and problem is None:
        windows = np.stack([load, load[:, ::-1], load, 2 * load, load[:, ::-1], load, load])
        problems = (*problems, PlacementProblem(foresee(windows), Cluster(num_ranks=4, slots_per_rank=3)))
    for strategy in strategies:
        for each in problems:
            solve(each, strategy, backend=backend, threads=threads, **(parameters or {}))
