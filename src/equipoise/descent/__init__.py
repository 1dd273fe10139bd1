"""Joint descent: replica counts and packing decided together. The contract; ``docs/algorithm.md`` explains it.

    plan_rows(weight, names, facts, held, max_gap, threads, stop)

``weight`` int64 [rows, experts] from ``to_fixed_point``; ``names`` int [rows, experts], ascending, who is behind each
column. ``facts`` int64 [rows, NUM_FACTS] from ``new_facts`` is read and set: afterwards it says what the busiest rank
carries (REACHED), what would be near enough to a lower bound (TARGET), how much work it took (STEPS) and how often each
stage acted. ``held`` int32 [rows, ranks, slots per rank] is set to the expert in each slot, by name. ``stop`` bool [1]
may be set from another thread: the search then ends within a few milliseconds, and one whose MOST is the STEPS that it
came to ends at the same place. Rows are independent, so their order and the number of threads do not matter.

Everything is whole numbers except thresholds in ``counts.py`` and ``pairing.py`` and the excess in ``trade.py``, which
are float64 in a fixed order; there is no randomness. ``reference`` is the same in plain Python, room by room, for
comparison.
"""

from __future__ import annotations

__all__ = ["EFFORTS", "STAGES"]

STAGES = ("swaps", "pairs", "chains", "redealt", "relaxed", "squeezed", "fitted", "traded", "paired", "exact")
"""What may act on a layer, in the order in which it is tried; see ``docs/algorithm.md``."""

EFFORTS = {"fast": 0, "balanced": 1, "thorough": 2}
"""What the search may cost on a layer that stays above the target: the first start only; at most a few hundred
descents; all of that, then some thousands. ``tuning.py`` has the numbers."""
