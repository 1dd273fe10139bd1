"""New shares for a plan in force: the load is levelled again, and no weights move."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from equipoise.arguments import as_instance
from equipoise.dispatch.foresight import cautious_shares, foresee
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem

__all__ = ["refresh"]


def refresh(plan: Plan, load: Any) -> Plan:
    """Return the plan with shares for a new load: the same placement, so that nothing has to be moved.

    Parameters
    ----------
    plan : Plan
        In force. What shares it has makes no difference.
    load : array or forecast
        Windows (num_windows, num_layers, num_logical_experts), oldest first; one load (num_layers,
        num_logical_experts); or a forecast: what has ``expected``, and ``errors`` with a ``weight`` each, if it knows
        them.

    Returns
    -------
    Plan
        With the best shares for what is expected, where past errors say nothing against them. Where at least three are
        known, from four windows or a forecast, a layer goes only so far from even shares as would have paid had they
        come again. Certificate and metrics are for the expected load, and for any placement with any shares. The same
        for the same arguments in every process.

    Raises
    ------
    InvalidInputError
        If ``load`` is none of this plan's layers and experts.

    Examples
    --------
    >>> import equipoise as eq
    >>> plan = eq.solve(eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(num_ranks=2, slots_per_rank=3)))
    >>> refresh(plan, [[4, 4, 1, 1]]).metrics.mean_balancedness
    1.0
    """
    as_instance(plan, Plan, "plan", "a Plan, such as solve returns")
    placement = plan.placement
    shares = cautious_shares(placement, load)
    problem = PlacementProblem(foresee(load).expected, plan.cluster, plan.num_expert_groups)
    provenance = dataclasses.replace(plan.provenance, problem_digest=problem.digest)
    held = placement.physical_to_logical.reshape(placement.num_layers, placement.num_ranks, -1) >= 0
    lost = np.flatnonzero(~held.any(axis=(0, 2))).tolist()
    found = Plan.of(problem, placement, provenance, quick=not held.all(), lost_ranks=lost, shares=shares)
    return dataclasses.replace(found, layer_ids=plan.layer_ids)
