"""Plans for what may come: the least expected square of rank loads, over a forecast and its errors. The contract.

    swap(rows, held, node, threads) -> objective

``rows``    int32 [layers, rows, experts]: whole numbers, see ``rows.py``. The first row is the forecast, the others are
            its past errors, each times the square root of what it counts. Never so large that squares overflow.
``held``    int32 [layers, ranks, slots]: the expert in each slot, every one of which has a slot. Changed in place.
``node``    int32 [ranks]: replicas change places only within a node.

With ``L_gs`` the sum over the replicas on rank g of ``row_s[e] // replicas of e``, the objective of a layer is

    sum over ranks g and rows s of L_gs^2,

the expected square of rank loads: that of the forecast and, as second moment, that of its errors, so experts whose
errors rise and fall together are kept on different ranks. It is the minimum second moment criterion, as mean-variance
portfolios have it, and with the rows as vectors it is vector balancing in the Euclidean norm.

Every two ranks of a node in turn, (0, 1), (0, 2), ... swap the two replicas that lower it most, ties to the lowest
slot of the first, then of the second; never so that an expert comes to a rank that holds it. That is repeated until a
sweep gains less than 1/5000 of the objective, twelve times at most. ``swap`` returns the objective, int64 [layers].

===============  =========================================================================
file             idea
===============  =========================================================================
``rows.py``      a forecast as whole numbers; the load from which a plan starts
``numba.py``     the contract, native: by the inner products of experts
``steps/``       from a placement in force: the steps that gain most for what they move
``reference.py`` the contract in plain Python
``fresh.py``     a plan made anew: start, then swaps
``scenarios.py`` what a placement would be, window by window
===============  =========================================================================
"""

from __future__ import annotations

from equipoise.robust.fresh import hedged, start_problem

__all__ = ["hedged", "start_problem"]
