"""Re-planning: level the ranks with few transfers, starting from what they hold. The contract of all implementations.

    descend(held, was, weight, node, home, level, limit) -> held, curve, spent

Arrays, one row a layer:

``held``    int32 [layers, ranks, slots]: the expert in each slot; ``EMPTY`` for a slot that may be filled, ``GONE``
            for one that may not (its rank is lost). Every expert has a slot.
``was``     bool [layers, ranks, experts]: what each rank holds in the placement in force.
``weight``  int64 [layers, experts], not negative, each row summing to at most 2**52.
``node``    int32 [ranks], ``home`` int32 [layers, experts]: an expert lies only where ``node[rank] == home[expert]``.
``level``   int64 [layers], not negative: load that nobody minds. Ranks are levelled down to it, not below.
``limit``   int64 [layers]: transfers at most, counted from ``was``: the slots whose expert their rank did not hold.
            At least what ``held`` takes already.

Returned are the slots after the last step; ``curve`` int64 [layers, max(limit) + 1], the busiest rank's load that
each limit would have led to (2**63 - 1 where ``held`` took more from the start, the last one beyond the layer's
own limit); and ``spent`` int64 [layers], the transfers of the slots returned.

The way is a sequence of steps. Each looks at the busiest rank h, ties to the lowest. It ends when that is at the level,
no step helps, or the best one would exceed the limit. So it depends on the limit only in where it ends: a larger one
goes on from where a smaller one ended, and never leaves more to the busiest rank. There are three kinds:

lend
    Expert a, which h holds, takes a slot of expert b on another rank g: a has one replica more, b one less.
    That lowers every rank that holds a, and is one transfer. b may be nobody: then a takes an empty slot.
shed
    Expert a, which h does not hold, takes a slot of b on h: again one transfer.
exchange
    Expert u on h and v on g take each other's slots: two transfers. v may be nobody: then u moves, which is one.

No step puts an expert on a rank that holds it, takes the last slot of b, or lets g or any rank that holds b reach the
load that h had: the busiest rank never grows. In an exchange, h and g both end lighter than h was. The gain of a
step is the decrease of the sum over ranks of ``(max(0, load - level) >> shift) ** 2``; ``shift`` is the least that
keeps each term at the start below ``2**60 / ranks``. Its cost is the transfers that it adds, where bringing an expert
back to where it was counts as one less. The best step has the largest ``gain * worth``, where worth is 1 for a
cost of two transfers, 2 for one, and 4 for none. Ties go to lend, then shed, then exchange; then to the lowest g, the
lowest slot of g, and the lowest slot of h (in shed to the lowest slot of h, and the lowest a).

Loads are whole numbers: a replica of expert e weighs ``weight[e] // replicas``.
"""

from __future__ import annotations

__all__ = ["EMPTY", "GONE"]

EMPTY, GONE = -1, -2
