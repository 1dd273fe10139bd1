"""The expected time of a slot, straight from its definition: slow, and right by inspection."""

from __future__ import annotations

import math

__all__ = ["expected_slot_time"]


def expected_slot_time(mean_tokens: float, floor: float, base: float, per_token: float) -> float:
    """Return the sum over n >= 1 of P(n) max(floor, base + per_token n), n Poisson; terms below 1e-18 are left out."""
    if mean_tokens == 0:
        return 0.0
    reach = 14 * math.sqrt(mean_tokens) + 60
    terms = []
    for n in range(max(1, int(mean_tokens - reach)), int(mean_tokens + reach) + 1):
        log_p = n * math.log(mean_tokens) - mean_tokens - math.lgamma(n + 1)
        terms.append(math.exp(log_p) * max(floor, base + per_token * n))
    return math.fsum(terms)
