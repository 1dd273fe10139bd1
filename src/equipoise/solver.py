"""From a problem to a plan: wiring, and nothing else."""

from __future__ import annotations

from typing import Any

from equipoise.certificate import certify
from equipoise.errors import InvalidInputError
from equipoise.metrics import Metrics
from equipoise.placement import Placement
from equipoise.plan import Plan, Provenance
from equipoise.problem import PlacementProblem
from equipoise.strategies import choose_strategy

__all__ = ["solve"]


def solve(
    problem: PlacementProblem,
    strategy: str = "pruned-restarts",
    *,
    seed: int = 0,
    backend: str = "auto",
    threads: int | None = None,
    **parameters: Any,
) -> Plan:
    """Decide where the experts live, and prove how good that is.

    Parameters
    ----------
    problem : PlacementProblem
    strategy : str
        A name in ``equipoise.strategies.STRATEGIES``.
    seed : int, default 0
        From 0 to 2**64 - 1. Everything random follows from it.
    backend : str, default "auto"
        Which implementation of the kernels runs; see ``equipoise.backends``. It never changes the plan.
    threads : int or None, default None
        None uses all processors that the process may run on. It never changes the plan.
    **parameters
        Of the strategy, such as ``restarts=512``.

    Returns
    -------
    Plan
        Placement, certificate and metrics. The same for the same arguments, in any process, on any
        number of threads; permuted layers give the permuted plan.

    Raises
    ------
    UnknownNameError
        If no strategy, parameter or backend has that name.
    InvalidInputError
        If a parameter breaks its rule.
    MissingDependencyError
        If the backend was asked for by name and cannot run here.

    Examples
    --------
    >>> import equipoise as eq
    >>> problem = eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(num_ranks=2, slots_per_rank=3))
    >>> eq.solve(problem).metrics.mean_balancedness
    1.0
    """
    if not isinstance(problem, PlacementProblem):
        raise InvalidInputError(f"problem is a {type(problem).__name__}; pass a PlacementProblem(load, cluster).")
    chosen = choose_strategy(strategy, **parameters)
    found = chosen.place(problem, seed, backend, threads)
    placement = Placement(found.physical_to_logical, problem.cluster.num_ranks, problem.num_logical_experts)
    certificate = certify(problem, placement)
    mean = problem.load.sum(axis=1) / problem.cluster.num_ranks
    metrics = Metrics(mean, certificate.max_rank_load, placement.num_duplicates)
    provenance = Provenance.of(chosen, seed, found.implementation, found.stages, problem.digest)
    return Plan(problem.cluster, problem.num_expert_groups, placement, certificate, metrics, provenance)
