"""``equipoise warmup``: compile the kernels now, so that nothing waits for that later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from equipoise.cli import options
from equipoise.cli.bars import seconds
from equipoise.cli.console import print_json, progress
from equipoise.cli.warm import for_any_processor, warm_up

__all__ = ["warmup"]


def warmup(as_json: options.AsJson = False) -> None:
    """Compile all kernels that plan, replan, slots, compare, evaluate and the engines' plug-ins call, and keep them.

    \b
    equipoise warmup
    NUMBA_CACHE_DIR=/var/cache/equipoise equipoise warmup     where the package's own folder is read-only

    Run it once where the engine will run, as the same user or as root, for instance when its image is built. What is
    compiled serves every processor with AVX2 (x86-64-v3), on other architectures this one; NUMBA_CPU_NAME names
    another. The first plan of an engine then takes milliseconds instead of seconds. What is kept is run: a folder that
    others can write to is not used.
    """
    from equipoise.strategies import STRATEGIES

    start = time.perf_counter()
    processor = for_any_processor()  # said again, to know which
    tasks = list(_tasks())
    with progress("compiling", total=len(tasks)) as step:
        for name, run in tasks:
            step(name)
            run()
    elapsed = time.perf_counter() - start
    if as_json:
        print_json({"strategies": list(STRATEGIES), "processor": processor, "seconds": elapsed})
    else:
        where = f" for {processor}" if processor else ""
        print(f"kernels for {', '.join(STRATEGIES)} are compiled{where}, {seconds(elapsed)}")


def _tasks() -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what is run, by name: whatever the commands and the plug-ins do, on tiny problems."""
    from equipoise.engines.warming import tasks
    from equipoise.strategies import STRATEGIES

    for strategy in STRATEGIES:
        yield f"plan, {strategy}", lambda strategy=strategy: warm_up([strategy])  # type: ignore[misc]
    yield "plan for a forecast", lambda: warm_up(["joint-descent"], forecast=True)
    yield "plan in time", _in_time
    yield "shares", _shares
    yield "replan", _replan
    yield "slots and bounds", _slots
    yield from tasks([None, *STRATEGIES])


def _replan() -> None:
    """Re-plan as the command does: within limits, with ranks lost and more ranks, and with the transfers in order."""
    import numpy as np

    from equipoise.migration.schedule import MigrationSchedule
    from equipoise.placement import Placement
    from equipoise.problem import Cluster, PlacementProblem
    from equipoise.replan.frontier import frontier
    from equipoise.solver import solve

    load = np.array([[9.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0], [0.0] * 8, [5.0, 5.0, 4.0, 3.0, 9.0, 1.0, 1.0, 2.0]])
    held = Placement(np.tile(np.arange(12) % 8, (3, 1)), 4, 8)
    for cluster, groups, lost in ((Cluster(4, 3), None, ()), (Cluster(4, 3, 2), 4, ()), (Cluster(5, 3), None, (1,))):
        problem = PlacementProblem(load, cluster, groups)
        frontier(problem, held, lost_ranks=lost)
        for most in (None, 3):
            found = solve(problem, current=held, max_transfers=most, lost_ranks=lost)
            MigrationSchedule(held, found.placement, cluster.num_nodes, lost).summary()
            _ = found.placement.logical_to_physical


def _in_time() -> None:
    """Plan and re-plan in microseconds, for one batch size and several, with groups or none; ask about slots."""
    import numpy as np

    from equipoise.advice import slot_times
    from equipoise.latency import LatencyModel
    from equipoise.problem import Cluster, PlacementProblem
    from equipoise.solver import solve

    load = np.array([[90.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0], [0.0] * 8, [5.0, 5.0, 4.0, 3.0, 9.0, 1.0, 1.0, 2.0]])
    model = LatencyModel.preset("h200")
    for cluster, groups in ((Cluster(4, 3), None), (Cluster(5, 2), None), (Cluster(4, 3, 2), 4)):
        for routed in (64.0, (64.0, 4096.0)):
            problem = PlacementProblem(load, cluster, groups, latency=model, routed_per_step=routed)
            solve(problem, current=solve(problem), max_layers=1)
    slot_times(PlacementProblem(load, Cluster(4, 2)), model, (4, 64), 2)


def _shares() -> None:
    """Plan with the best shares for a placement, and with ranks that are connected."""
    import numpy as np

    from equipoise.problem import Cluster, PlacementProblem
    from equipoise.solver import solve

    load = np.array([[9.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0], [0.0] * 8, [5.0, 5.0, 4.0, 3.0, 9.0, 1.0, 1.0, 2.0]])
    for cluster, groups in ((Cluster(4, 3), None), (Cluster(4, 3, 2), 4)):
        solve(PlacementProblem(load, cluster, groups), shares="best", connected=True)


def _slots() -> None:
    """Find slots and prove bounds as the commands do, with groups and without."""
    import numpy as np

    from equipoise.capacity import slots_for
    from equipoise.certificate import certify
    from equipoise.placement import Placement
    from equipoise.problem import Cluster, PlacementProblem

    load = np.array([[9.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0], [5.0, 5.0, 4.0, 3.0, 9.0, 1.0, 1.0, 2.0]])
    for nodes, groups in ((1, None), (2, 4)):
        slots_for(PlacementProblem(load, Cluster(4, 2, nodes), groups), 0.99, most_slots=16)
    problem = PlacementProblem(load, Cluster(4, 3))
    certify(problem, Placement.in_order(2, problem.cluster, 8))
