"""Shares that leave the busiest rank least: water-filling, then augmenting paths. The contract of all implementations.

    pour(physical_to_logical, load, num_ranks, gap) -> shares, tight

``physical_to_logical`` int32 [layers, slots], -1 for an empty slot; ``load`` float64 [layers, experts]. ``shares``
float64 [layers, slots] sums to 1 over the slots of each expert that has one; slots of a rank that hold the same expert
get equal parts, and an expert without tokens, or with so few that float64 loses them, is shared evenly. ``tight`` bool
[layers, ranks] is a set of ranks, the proof: what must be carried among them, divided by their number, the busiest rank
exceeds by no more than ``gap``. Shares stay even where no others are better.

**Water-filling.** From even shares, each replicated expert in turn is poured anew over its ranks, given what these
carry otherwise, until they stand equally high: the best answer for that expert, both for the busiest of its ranks and
for the sum of the squares of all rank loads. No step raises the busiest rank. Sweeps over the experts, there and back,
are block-coordinate descent on that sum, whose minimum is level wherever shares can make it so.

**The bound.** The experts that live only on ranks of a set must be carried by these: their load, divided by the size of
the set, is less than the busiest rank carries. Asked are the sets of the k busiest ranks, for every k. At the minimum
one of them is tight: ranks that can give nothing away, because all that they carry lives among them.

**Augmenting paths.** Sweeps come close fast, and exactly there slowly. So after ``SWEEPS`` of them tokens are pushed
from the busiest rank to the nearest rank below the bound, over ranks joined by experts that they share (a shortest
augmenting path of a flow). If there is none, the ranks that can be reached are a tight set, and the bound rises to
their mean. Both are exact but for rounding, so the two meet.
"""

from __future__ import annotations

__all__ = ["LEAST_GAIN", "LOOK_EVERY", "SWEEPS"]

LEAST_GAIN = 1e-9
"""The part of the busiest rank's load for which shares are made uneven: no less than rounding makes of it."""

SWEEPS = 16
"""Sweeps over the experts of a layer before paths are looked for."""

LOOK_EVERY = 4
"""Sweeps between two looks at the bound."""
