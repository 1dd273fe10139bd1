"""What each rank carries, recounted from the slots, and what is wrong with them. The contract of all implementations.

    recount(physical_to_logical, load, num_ranks, num_nodes, num_groups) -> rank_load, flaws

``physical_to_logical`` int32 [layers, slots], each rank with as many consecutive slots; ``load`` float64 [layers,
experts]. ``rank_load`` float64 [layers, ranks]: every replica carries load / replicas, added in the order of the slots;
a slot that holds no expert carries nothing. ``flaws`` int64 [layers], a sum of

EMPTY       a slot is empty, or holds no expert of the load
MISSING     an expert has no slot
DOUBLED     a rank holds an expert twice
TORN        a group, one of ``num_groups`` of consecutive experts, lies on more than one of ``num_nodes`` nodes
UNEVEN      nodes hold different numbers of groups, counted wherever a group has an expert

With one group nothing is TORN or UNEVEN.
"""

from __future__ import annotations

__all__ = ["DOUBLED", "EMPTY", "MISSING", "TORN", "UNEVEN"]

EMPTY, MISSING, DOUBLED, TORN, UNEVEN = 1, 2, 4, 8, 16
