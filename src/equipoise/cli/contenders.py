"""Several ways to place the same problem, side by side."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from equipoise.cli import options
from equipoise.cli.bars import ratio, seconds

if TYPE_CHECKING:
    from rich.table import Table

    from equipoise.plan import Plan
    from equipoise.problem import PlacementProblem

__all__ = ["NO_BALANCING", "Contender", "in_order", "planned", "strategies_to_compare", "table_of", "timed"]

NO_BALANCING = "no balancing"


@dataclass(frozen=True)
class InOrder:
    """Experts in order over the slots, and again from expert 0 for the redundant ones: what engines start from."""

    name: ClassVar[str] = "in-order"


@dataclass(frozen=True, eq=False)
class Contender:
    """One way to place a problem: its name, what came of it, and how long it took."""

    name: str
    plan: Plan
    seconds: float | None
    microseconds: tuple[float, ...] | None = None
    """Expected of the busiest rank, mean of layers, for each batch size; None where no GPU is told."""

    def to_dict(self) -> dict[str, Any]:
        """Return its numbers for ``--json``."""
        metrics, certificate = self.plan.metrics, self.plan.certificate
        return {
            "name": self.name,
            "mean_balancedness": metrics.mean_balancedness,
            "worst_balancedness": metrics.worst_balancedness,
            "realised_balancedness": None if self.plan.steps is None else self.plan.steps.mean_balancedness,
            "mean_gap": certificate.mean_gap,
            "max_gap": certificate.max_gap,
            "num_duplicates": int(metrics.num_duplicates.sum()),
            "seconds": self.seconds,
            **({} if self.microseconds is None else {"microseconds": list(self.microseconds)}),
        }


def strategies_to_compare(backend: str = "auto") -> tuple[list[str], list[str]]:
    """Return the names of the strategies that run on ``backend``, the plain greedy one first, and of the others."""
    from equipoise.backends import choose_backend
    from equipoise.strategies import STRATEGIES, PlainGreedy

    choose_backend(backend)
    runs = {name: backend in ("auto", *strategy.backends) for name, strategy in STRATEGIES.items()}
    chosen = sorted((name for name in runs if runs[name]), key=lambda name: name != PlainGreedy.name)
    return chosen, [name for name in runs if not runs[name]]


def in_order(problem: PlacementProblem) -> Contender:
    """Place experts as ``InOrder`` says.

    Groups are not looked at: the placement is measured against the bounds of the problem without them.
    """
    from equipoise.placement import Placement
    from equipoise.plan import Plan
    from equipoise.problem import PlacementProblem
    from equipoise.provenance import Provenance

    free = PlacementProblem(problem.load if problem.steps is None else problem.steps, problem.cluster)
    placement = Placement.in_order(problem.num_layers, problem.cluster, problem.num_logical_experts)
    provenance = Provenance.of(InOrder(), 0, "numpy", {}, free.digest)
    return Contender(NO_BALANCING, Plan.of(free, placement, provenance), None)


def planned(
    problem: PlacementProblem,
    strategies: Sequence[str],
    step: Callable[[str], None],
    seed: int = 0,
    backend: str = "auto",
    threads: int | None = None,
) -> list[Contender]:
    """Plan ``problem`` by each strategy and take the time; kernels must be warm."""
    from equipoise.solver import solve

    found = []
    for strategy in strategies:
        step(strategy)
        start = time.perf_counter()
        plan = solve(problem, strategy, seed=seed, backend=backend, threads=threads)
        found.append(Contender(strategy, plan, time.perf_counter() - start))
    return found


def timed(contenders: Sequence[Contender], problem: PlacementProblem, timing: options.Timing | None) -> list[Contender]:
    """Return the contenders with what their busiest rank takes, a mean over layers with tokens, and the plan in time.

    The others have all their replicas active, as engines do. Without ``timing`` they are returned as they are.
    """
    from equipoise.advice import mean_busiest, rank_times
    from equipoise.solver import solve

    if timing is None:
        return list(contenders)
    found = []
    for each in contenders:
        sizes = timing.routed(problem.cluster.num_ranks)
        took = [rank_times(each.plan.placement, timing.latency, problem, size) for size in sizes]
        found.append(dataclasses.replace(each, microseconds=tuple(mean_busiest(each_, problem) for each_ in took)))
    asked = timing.asked(problem)
    solve(asked.of_layers(first_layer()))  # compiled before the clock starts
    start = time.perf_counter()
    plan = solve(asked)
    elapsed = time.perf_counter() - start
    assert plan.time is not None
    means = tuple(plan.time.mean_max_rank_time.tolist())
    return [*found, Contender("in time", plan, elapsed, means)]


def first_layer() -> Any:
    """Return what names the first layer of a problem."""
    import numpy as np

    return np.zeros(1, np.int64)


def table_of(contenders: Sequence[Contender]) -> Table:
    """Return the contenders as a table, a row each; averages over layers are named as such."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("\n", no_wrap=True)
    # Two numbers a column: rich has no headings that span columns.
    steps = any(each.plan.steps for each in contenders)
    realised = ["realised\nmean"] if steps else []
    for heading in ("balancedness\nmean   worst", *realised, "gap to bound\nmean   worst", "\nduplicates"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("\ntime", justify="right", no_wrap=True, min_width=7)  # as wide for every time
    with_times = any(each.microseconds is not None for each in contenders)
    if with_times:
        table.add_column("us a\nlayer", justify="right", no_wrap=True)
    for each in contenders:
        metrics, certificate = each.plan.metrics, each.plan.certificate
        table.add_row(
            each.name,
            f"{metrics.mean_balancedness:.4f}  {metrics.worst_balancedness:.4f}",
            *([f"{each.plan.steps.mean_balancedness:.4f}" if each.plan.steps else "-"] if steps else []),
            f"{ratio(certificate.mean_gap)}  {ratio(certificate.max_gap):>7}",
            f"{int(metrics.num_duplicates.sum()):,}",
            "-" if each.seconds is None else seconds(each.seconds),
            *([" ".join(f"{us:.1f}" for us in each.microseconds or ())] if with_times else []),
        )
    return table
