"""From a problem to a plan: wiring, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from equipoise.dispatch import choose_shares
from equipoise.errors import InvalidInputError, shown
from equipoise.how import How
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem, as_problem
from equipoise.provenance import Provenance
from equipoise.replan.budget import Budget
from equipoise.replan.in_force import known_lost
from equipoise.strategies import DEFAULT
from equipoise.timed import solve_in_time

__all__ = ["solve"]


def solve(
    problem: PlacementProblem,
    strategy: str = DEFAULT,
    *,
    seed: int = 0,
    backend: str = "auto",
    threads: int | None = None,
    current: Placement | Plan | None = None,
    max_transfers: int | None = None,
    max_transfers_total: int | None = None,
    min_gain: float | None = None,
    max_layers: int | None = None,
    lost_ranks: Iterable[int] = (),
    restored_ranks: Iterable[int] = (),
    shares: str = "even",
    connected: bool = False,
    **parameters: Any,
) -> Plan:
    """Decide where the experts live, and prove how good that is.

    Parameters
    ----------
    problem : PlacementProblem
        Where its load is a ``Forecast`` with errors, the plan is for what may come: replicas for what is expected and
        two thirds of a standard deviation of the errors, then swaps that lower the expected square of rank loads; see
        ``equipoise.robust``. Its certificate is for the load that is expected.
        With a latency model, the expected time of the busiest rank is minimised, see ``equipoise.timed``, and the
        strategy balances what that starts from. Of a forecast it is the time of what is expected, whatever its errors.
    strategy : str
        A name in ``equipoise.strategies.STRATEGIES``.
    seed : int, default 0
        From 0 to 2**64 - 1. Everything random follows from it.
    backend : str, default "auto"
        Which implementation runs; see ``equipoise.backends``. It never changes the plan. Asked for by name, it runs
        or is refused: pruned restarts run on all of them, the other strategies on ``numba`` alone.
    threads : int or None, default None
        None uses all processors that the process may run on. It never changes the plan.
    current : Placement, Plan or None, default None
        What is in force, to start from. It may have fewer or more ranks than the problem (rank r is the same rank),
        fewer or more slots a rank, empty slots and experts without a slot.
    max_transfers, max_transfers_total : int or None, default None
        With ``current``: transfers in each layer, and in all layers together, at most. A transfer is a slot whose
        expert its rank does not hold in ``current``. What stays keeps its slot; 0 changes nothing. With neither,
        the plan is made anew and its ranks renamed so that as few as possible are left; with a latency model that is
        the only way, dormant replicas are of what their rank holds already, and these limits are refused. From an
        eighth of the slots on, a limit is no worse than none where that plan fits into it, but for layers that are
        within 0.1 % of level. Where expert groups of a hierarchical problem lie on several nodes in ``current``, a
        limit leaves each on the node that has most of it and drops the rest; ``plan.provenance.stages["emptied"]``
        counts the slots that are empty for that, and 0 is refused.
    min_gain : float or None, default None
        With ``current``: a layer whose busiest rank would not get lighter, by this part of its load at least, stays as
        it is, if it can: on the same ranks and slots, every slot filled, no expert twice on a rank without need. 0 asks
        for any gain; None takes what is found.
    max_layers : int or None, default None
        With ``current``: layers that change, at most: those whose busiest rank loses most tokens. Layers that cannot
        stay as they are count first, and change whatever the limit. With a latency model ``min_gain`` and this are of
        microseconds, mean of batch sizes, and in a layer that stays what is not worth its time sleeps.
    lost_ranks : iterable of int, default ()
        With ``current``: ranks that are gone. What they held is lost, and their slots stay empty (-1). Those that a
        plan in force records stay lost: ``plan.lost_ranks``.
    restored_ranks : iterable of int, default ()
        With a plan as ``current``: ranks that it records as lost, and that are back, without anything.
    shares : str, default "even"
        What part of an expert's tokens each of its replicas gets: ``"even"`` parts, or the ``"best"`` for the placement
        that is found, see ``equipoise.share``. ``plan.shares`` has them, and the certificate is of them.
    connected : bool, default False
        Whether the ranks of each layer are connected by the experts they share, as far as the replicas allow and
        without loss of balance (``max_gap`` at most), so that new shares can carry load from anywhere to anywhere when
        it drifts: ``equipoise.flexibility`` says how far. With a limit on transfers, by what is left of it. Takes some
        40 ms of a core for a layer of 320 slots on 64 ranks.
    **parameters
        Of the strategy, such as ``restarts=512``.

    Returns
    -------
    Plan
        Placement, certificate and metrics. The same for the same arguments, in any process, on any
        number of threads; permuted layers give the permuted plan. With a limit, slots that were empty may stay so.

    Raises
    ------
    UnknownNameError
        If no strategy, parameter, backend or kind of shares has that name.
    InvalidInputError
        If a parameter breaks its rule, the strategy does not run on the backend that was asked for by name, or a limit
        is given without ``current``.
    InfeasibleError
        If the slots that are left cannot hold every expert, or the limit does not let each expert have one.
    MissingDependencyError
        If the backend was asked for by name and cannot run here.

    Examples
    --------
    >>> import equipoise as eq
    >>> problem = eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(num_ranks=2, slots_per_rank=3))
    >>> eq.solve(problem).metrics.mean_balancedness
    1.0
    """
    as_problem(problem)
    how = How.of(strategy, seed=seed, backend=backend, threads=threads, connected=connected, **parameters)
    lost = known_lost(current, lost_ranks, restored_ranks)
    budget = Budget(max_transfers, max_transfers_total, min_gain, max_layers, lost_ranks=lost)
    choose = choose_shares(shares)
    if current is None and budget != Budget():
        raise InvalidInputError(
            "max_transfers, max_transfers_total, min_gain, max_layers and lost_ranks count from a placement in force; "
            "pass current=placement."
        )
    if problem.latency is not None:
        if shares != "even":
            raise InvalidInputError(
                f"shares is {shown(shares)}, and a latency model gives even ones to active replicas; leave shares out, "
                "or pose the problem without latency."
            )
        if current is None:
            return solve_in_time(problem, how)
        from equipoise.replan.in_time import replan_in_time

        return replan_in_time(problem, current, budget, how)
    if current is not None:
        from equipoise.replan.replan import replan

        return replan(problem, current, budget, how, choose)
    found, placement = how.place(problem)
    provenance = Provenance.of(found.strategy, how.seed, found.implementation, found.stages, problem.digest)
    return how.finish(problem, placement, provenance, choose, how.again)
