"""From a placement in force: steps that lower the expected square of rank loads most for their cost. The contract.

    descend(rows, held, was, node, home, level, limit) -> held, curve, spent, ended

``rows``, ``held`` and ``node`` are as in the contract of ``equipoise.robust``, but that a slot of ``held`` may be
``EMPTY`` or ``GONE``; ``was``, ``home`` and ``limit`` as in ``equipoise.replan.levelling``. ``level`` int64 [layers] is
the objective of level ranks without errors; what the objective has more is the excess.

Each step is one of two kinds. *Take*: expert a takes a slot of b, or an empty one, on a rank that does not hold a; b
has another replica. *Swap*: replicas on two ranks of a node change places, or one moves to an empty slot. A step
costs the transfers that it adds, and half of one at least. The step with the largest gain for its cost is made; ties
go to takes, by rank, slot and a, then to swaps, by the two ranks and their slots. The way ends where that is less than
.3 % of the excess for a transfer, where the step would exceed the limit, and where rounding leaves it no gain. So a
larger limit goes on where a smaller one ends, and the objective falls with every step.

Where no step is worth its transfers, chains of steps are tried (variable-depth search, Kernighan and Lin 1970): each
of the ``HOTTEST`` experts whose replicas carry most, half of the mean rank load at least, takes the slot that costs it
least, whatever that loses, and up to ``DEPTH`` best steps follow, none of which takes a slot of that expert. Of all
beginnings of chains that cost ``LEFT`` transfers or more, the one that gains most for them is made as if it were one
step. So an expert that is too hot for one rank is split, which pays only once others have made room.

Gains are worked out in float64 from the exact inner products of the rows of experts, as if a replica weighed exactly
its part of the row; the objective itself has replicas rounded down.

Returned are the slots; ``curve`` int64 [layers, max(limit) + 1], the objective within each limit, 2**63 - 1 where
``held`` took more from the start, the last one beyond the layer's own limit; ``spent`` int64 [layers], the transfers of
the slots; and ``ended`` bool [layers], whether it is known that no larger limit would lead further.

================  ===================================================================
file              idea
================  ===================================================================
``rules.py``      what a step must be worth, and a chain
``layer.py``      the state of a layer: the objective, and what follows from the slots
``making.py``     what a step costs, making it, taking it back
``finding.py``    the best step
``chains.py``     chains, where no step pays
``numba.py``      all layers, native
``reference.py``  the same in plain Python
================  ===================================================================
"""

from __future__ import annotations

from equipoise.robust.steps.numba import descend
from equipoise.robust.steps.rules import EMPTY, LEAST_GAIN, MAX

__all__ = ["EMPTY", "LEAST_GAIN", "MAX", "descend"]
