"""Plans in time: what balances tokens is the start, and what every plan is held to.

The expected time of the busiest rank is minimised: replica counts, packing and the active set together. Of plans that
are about as good, the one is taken whose busiest rank of a single step is likely to take less: see
``equipoise.timing``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance
from equipoise.dispatch import Shares
from equipoise.errors import InvalidInputError
from equipoise.how import How
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem, as_problem
from equipoise.provenance import Provenance
from equipoise.timing.certificate import certify_checked

__all__ = ["solve_in_time"]

MAX_GAP = 0.001  # of strategies that have none of their own


def solve_in_time(problem: PlacementProblem, how: How) -> Plan:
    """Return the plan of a problem with a latency model; see ``equipoise.solve``.

    Its ``shares`` are even among the active replicas of an expert, 0 for dormant ones, and ``time`` has the expected
    time of the busiest rank, its bound, and the shares of each batch size.

    Notes
    -----
    With one batch size no layer is slower, in expectation, than the plan that ``how`` finds for tokens, nor by more
    than 0.1 % than what this finds with fewer slots a rank; in layers of more than 128 slots by 2 %, for
    there a plan for tokens with fewer slots is looked at only where a bound leaves so much. With several, no layer
    is slower at any size than the token plan with all replicas active; nor by more than 0.05 % than the same problem
    with one slot a rank less, in layers where search comes to both at all sizes: not in all are there placements that
    do, see ``equipoise.timing.several``. Where slots cost nothing but by their tokens, the plan is that of
    tokens, bit for bit, and all replicas are active.
    """
    from equipoise.timing.plan import InTime

    if as_problem(problem).latency is None:
        raise InvalidInputError("problem has no latency model; pass PlacementProblem(..., latency=..., ...).")
    as_instance(how, How, "how", "a How, such as How.of()")
    tokens = how.find(problem.in_tokens)

    def place(asked: PlacementProblem) -> NDArray[np.int32]:
        """Return the placement of a problem in tokens."""
        return tokens.physical_to_logical if asked.cluster == problem.cluster else how.find(asked).physical_to_logical

    in_time = InTime(problem, float(getattr(how.strategy, "max_gap", MAX_GAP)), how.threads)
    table, active = in_time.plan(place)
    placement = Placement(table, problem.cluster.num_ranks, problem.num_logical_experts)
    shares = tuple(_even_among(placement, each) for each in active)
    provenance = Provenance.of(tokens.strategy, how.seed, tokens.implementation, tokens.stages, problem.digest)
    plan = Plan.of(problem.in_tokens, placement, provenance, shares=None if active.all() else shares[-1])
    time = certify_checked(problem, placement, shares, in_time.bound)
    return replace(plan, shares=shares[-1], time=time)


def _even_among(placement: Placement, active: NDArray[np.bool_]) -> Shares:
    """Return even shares among the replicas that are ``active`` [layers, slots]."""
    table, experts = placement.physical_to_logical, placement.num_logical_experts
    cell = np.arange(len(table))[:, None] * experts + table
    count = np.bincount(cell.ravel(), active.ravel(), minlength=len(table) * experts)
    return Shares(active / np.maximum(count, 1.0)[cell], placement)
