"""What an active replica costs, as a whole number: sums of such numbers have one value, whatever their order."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import allocating, inlined
from equipoise.latency.curve import slot_time

__all__ = ["TOP", "cost", "least_replicas", "scale_of"]

TOP = 2.0**40
"""What the hottest expert costs where it has one replica."""

NEAR = 1e-12  # relative; a count is not raised for what rounding adds


@allocating
def scale_of(curve, most_tokens):
    """Return the steps of a microsecond: an expert with ``most_tokens``, the hottest, comes to ``TOP``."""
    time = slot_time(curve, most_tokens)
    return TOP / time if time > 0.0 else 1.0


@inlined
def cost(curve, scale, mean_tokens, count):
    """Return what each of ``count`` active replicas of an expert costs."""
    return np.int64(np.rint(slot_time(curve, mean_tokens / count) * scale))


@allocating
def least_replicas(mean_tokens, most, limit):
    """Return the fewest replicas of an expert with ``most`` tokens each or fewer; one more than ``limit`` at most."""
    if mean_tokens <= most:
        return 1
    if mean_tokens >= most * limit:
        return limit + (mean_tokens * (1.0 - NEAR) > most * limit)
    return max(int(np.ceil(mean_tokens / most * (1.0 - NEAR))), 1)
