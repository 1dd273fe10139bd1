"""Plans in time: what balances tokens is the start, and what every plan is held to.

The expected time of the busiest rank is minimised: replica counts, packing and the active set together. Of plans that
are about as good, the one is taken whose busiest rank of a single step is likely to take less: see
``equipoise.timing``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
from equipoise.strategies import Found
from equipoise.timing.certificate import certify_checked

if TYPE_CHECKING:
    from equipoise.timing.plan import InTime

__all__ = ["Timed", "even_among", "find_in_time", "prove_in_time", "solve_in_time"]

MAX_GAP = 0.001  # of strategies that have none of their own


@dataclass(frozen=True, eq=False)
class Timed:
    """A plan in time without its proof.

    Attributes
    ----------
    table : int32 array, shape (num_layers, num_slots)
        The expert in each slot, -1 in none.
    active : bool array, shape (num_batch_sizes, num_layers, num_slots)
        Which slots get tokens, the smallest batch first.
    tokens : Found
        What balances tokens.
    in_time : InTime
        What knows bounds on the time, and fills slots.
    """

    table: NDArray[np.int32]
    active: NDArray[np.bool_]
    tokens: Found
    in_time: InTime


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
    if as_problem(problem).latency is None:
        raise InvalidInputError("problem has no latency model; pass PlacementProblem(..., latency=..., ...).")
    as_instance(how, How, "how", "a How, such as How.of()")
    found = find_in_time(problem, how)
    return prove_in_time(problem, found, how.seed, found.tokens.stages)


def find_in_time(problem: PlacementProblem, how: How) -> Timed:
    """Return what ``solve_in_time`` does, without the proof."""
    from equipoise.timing.plan import InTime

    tokens = how.find(problem.in_tokens)

    def place(asked: PlacementProblem) -> NDArray[np.int32]:
        """Return the placement of a problem in tokens."""
        return tokens.physical_to_logical if asked.cluster == problem.cluster else how.find(asked).physical_to_logical

    in_time = InTime(problem, float(getattr(how.strategy, "max_gap", MAX_GAP)), how.threads)
    table, active = in_time.plan(place)
    return Timed(table, active, tokens, in_time)


def prove_in_time(
    problem: PlacementProblem, found: Timed, seed: int, stages: dict[str, int], lost_ranks: tuple[int, ...] = ()
) -> Plan:
    """Return the plan of what was found: checked, measured and with its proof.

    On ``lost_ranks`` no slot may hold an expert, and ``found.in_time`` is of those that are left.
    """
    placement = Placement(found.table, problem.cluster.num_ranks, problem.num_logical_experts)
    shares = tuple(even_among(placement, each) for each in found.active)
    how = Provenance.of(found.tokens.strategy, seed, found.tokens.implementation, stages, problem.digest)
    uneven = None if found.active[:, found.table >= 0].all() else shares[-1]
    lost = bool(lost_ranks)  # then the quick bounds say as much
    plan = Plan.of(problem.in_tokens, placement, how, quick=lost, lost_ranks=lost_ranks, shares=uneven)
    time = certify_checked(problem, placement, shares, found.in_time.bound)
    return replace(plan, shares=shares[-1], time=time)


def even_among(placement: Placement, active: NDArray[np.bool_]) -> Shares:
    """Return even shares among the replicas that are ``active`` [layers, slots]."""
    table, experts = placement.physical_to_logical, placement.num_logical_experts
    cell = np.arange(len(table))[:, None] * experts + np.maximum(table, 0)  # an empty slot is not active
    count = np.bincount(cell.ravel(), active.ravel(), minlength=len(table) * experts)
    return Shares(active / np.maximum(count, 1.0)[cell], placement)
