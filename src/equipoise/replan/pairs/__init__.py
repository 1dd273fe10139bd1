"""Levelling rank by rank: the busiest rank changes places with one other, until all are level enough.

    exchange(held, weight, node, target) -> busiest

Changes ``held`` in place. Arrays, one row a layer:

``held``     int32 [layers, ranks, slots]: the expert in each slot; a negative number for nobody, who stays.
``weight``   int64 [layers, experts], not negative, each row summing to at most 2**52.
``node``     int32 [ranks]: nothing leaves its node.
``target``   int64 [layers]: a rank that carries no more is level.

Returned is what the busiest rank of each layer carries then, int64 [layers]; 2**63 - 1 for a layer that has an expert
twice on a rank, which is left as it is.

Each step looks at the busiest rank h, ties to the lowest. It ends when that is level, when no step makes h lighter, or
after as many steps as a layer has slots. There are two kinds:

exchange
    Expert u on h and v on g take each other's slots. g carries less than the target, does not hold u, and h does not
    hold v. The ranks are asked in turn, the lightest of the node first (ties to the lowest), then from the lowest on,
    until one lets both end level. The best exchange leaves least to the busier of the two; then the first rank asked,
    the lowest slot of g and the lowest slot of h.
lend
    Only where no exchange takes away half of what h carries above the target. Expert a on h takes a slot of b on
    another rank g: a has one replica more, b one less. g does not hold a, h does not hold b, and b has several
    replicas. The best lend leaves least to the busiest of h, g and the others that hold b; then the lowest rank and
    slot of g, and the lowest slot of h. It is made if that is less than what the best exchange leaves.

So h always ends lighter than it was, and no other rank as heavy. Loads are whole numbers: a replica of expert e weighs
``weight[e] // replicas``. What the others that hold b carry is counted without what a takes from them.

Beside ``levelling``, which looks for the step that gains most per transfer, this one takes a step that is good enough:
some more transfers, for a small part of the time.
"""

from __future__ import annotations

__all__ = ["MAX"]

MAX = 2**63 - 1
