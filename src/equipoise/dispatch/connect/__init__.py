"""Swaps that connect ranks by the experts they share, and lose no balance. The contract of all implementations.

    connect(physical_to_logical, load, factors, limit, most, num_ranks, ranks_per_node) -> physical_to_logical, swaps

Shares can carry load from a rank to another only over experts that ranks share: the ranks are the nodes of a graph, and
each replicated expert joins those that hold it. ``physical_to_logical`` int32 [layers, slots], -1 for an empty slot;
``load`` float64 [layers, experts]; ``factors`` float64 [scenarios, experts], by what the load of each expert may have
changed later; ``limit`` float64 [layers], what no rank may carry with even shares; ``most`` int64 [layers], swaps at
most. The slots that come back hold the same replicas, on ranks of the same node as before, no expert newly twice on a
rank, after ``swaps`` int64 [layers] exchanges of the contents of two slots.

**Joining.** A replica changes places with something of another component wherever fewer components are left.

**Widening.** Then it does so wherever the busiest ranks of all scenarios, each with its best shares, carry less
together, and no component is split. Each scenario keeps ``CUTS`` sets of ranks, at first all ranks, then those that
water-filling named: what must be carried among them is a lower bound, and so cheap to follow through a swap that most
swaps are refused without pouring (the cuts of Benders' decomposition). It ends when a whole round of pairs changes
nothing, or after ``POURS``.
"""

from __future__ import annotations

__all__ = ["CUTS", "GAP", "POURS"]

CUTS = 4
"""Sets of ranks that are kept for each scenario."""

GAP = 1e-4
"""To which water-filling goes, and the least part of the busiest ranks for which a swap is made."""

POURS = 800
"""How often a layer is poured at most while it is widened."""
