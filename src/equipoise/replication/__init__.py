"""How many: replica counts that make the largest replica as small as it can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_load
from equipoise.errors import InfeasibleError
from equipoise.fixed_point import to_fixed_point
from equipoise.problem import count

__all__ = ["count_replicas"]


def count_replicas(load: NDArray[np.float64], num_slots: int) -> NDArray[np.int32]:
    """Decide how many slots each logical expert gets.

    Parameters
    ----------
    load : array, shape (num_layers, num_logical_experts)
        Tokens per window. Finite and not negative. A layer may be all zeros.
    num_slots : int
        Slots in one layer, counted over all EP ranks.

    Returns
    -------
    replica_count : int32 array, shape (num_layers, num_logical_experts)
        At least 1 everywhere. Each row sums to ``num_slots``.

    Raises
    ------
    InfeasibleError
        If there are fewer slots than logical experts.

    Notes
    -----
    No other counts reach a smaller ``max(load / replica_count)``: the rule is d'Hondt's apportionment with
    one seat each. That says nothing yet about rank loads. Ties go to the lowest expert id, so ranks
    that see the same load agree without talking.

    Examples
    --------
    >>> count_replicas([[6, 3, 1]], num_slots=5).tolist()
    [[3, 1, 1]]
    """
    from equipoise.kernels.replication.numba import replicate

    load = as_load(load)
    num_slots = count(num_slots, "num_slots")
    if num_slots < load.shape[1]:
        raise InfeasibleError(
            f"{num_slots} slots cannot hold {load.shape[1]} logical experts, which need one slot each. "
            f"Add at least {load.shape[1] - num_slots} slots per layer."
        )
    return replicate(to_fixed_point(load), num_slots, most=num_slots)[1]
