"""Joint descent: replica counts and packing decided together. The contract.

    plan_rows(weight, names, num_ranks, slots_per_rank, floor, max_gap, effort, threads)
        -> held, busiest, within, passed, stages

``weight`` int64 [rows, experts] from ``to_fixed_point``; ``names`` int [rows, experts], ascending, who is behind each
column; ``floor`` int64 [rows], a load that the busiest rank need not go below even if it could (0 for none). ``held``
int32 [rows, ranks, slots per rank], the expert in each slot, by name; ``busiest`` int64 [rows], what the busiest rank
carries; ``within`` bool [rows], whether that is proved to be within ``max_gap``; ``passed`` bool [rows], whether it is
proved to be no more than in the plain greedy plan; ``stages`` int64 [rows, len(STAGES)],
how often each stage acted. Rows are independent, so their order and the number of threads do not matter.

Each stage is one file or one function, and stops the row as soon as the busiest rank is within
``max_gap`` of a lower bound:

bounds      max(ceil(W / R), t*), see ``equipoise.certificate``.
counts      replica counts that make the largest replica least, by bisection on its size (start.py).
fold        deal the replicas in S rounds, each round the largest to the lightest rank (start.py).
            With three slots a rank, or many ranks, one replica of every rank is then dealt again a few times,
            which does the work of many swaps at once (redeal.py).
swaps       exchange an item of the heaviest rank with one of a lighter rank, a two-pointer scan for each pair of
            ranks (improve.py); where that and pairs do not help, of every rank above the target, among all items in
            line by load (line.py).
pairs       the same for two items against two (improve.py).
chains      swap the heaviest rank with one that gets too heavy, which swaps on with a third (line.py).
relaxed     start again from other counts: let the largest replica be larger, and spend the slots that this
            frees elsewhere. Under heavy skew the least largest replica is a bad start: more than R
            replicas of more than half a rank each cannot be told apart (start.py).
squeezed    with 4 to 16 slots a rank and at most 1,024 in all: fill ranks to the target exactly, one after the
            other, so that the room below it gathers on few; where that fails, deal two replicas of each rank again
            and repeat (squeeze.py).
fitted      the same from counts that a search over thresholds made: large replicas need ranks of their own and
            light company, the rest needs the other ranks (company.py). Made for the target, and for up to 16 times
            its gap: counts that leave slack often lead to the target by trades.
converted   take a slot from one expert for another: where squeezing is worth it, the best few on the spot are tried,
            and the best of those after levelling is gone on with, even uphill (trade.py); elsewhere only the first, as
            long as that lets the swaps go on (improve.py).
paired      two slots a rank: pairing the largest with the smallest replica is optimal for given counts, so
            the search is over the counts alone (pairing.py).

Rows that the first descent leaves above the target, after pairs or chains, go on in harder.py, which is compiled when
the first such row comes. Where one expert has a quarter of the load or more, its target is first raised to what the
counts of that expert leave possible (see ``equipoise.bounds.hottest``). With at most 24 slots, more than two a rank,
all counts and placements are tried last, as far as a limit on the steps allows (exact.py).

Everything is integer arithmetic except thresholds in ``start.py``, ``company.py`` and ``pairing.py``, which use float64
in a fixed order; there is no randomness.
"""

from __future__ import annotations

__all__ = ["EFFORTS", "STAGES"]

STAGES = ("swaps", "pairs", "chains", "relaxed", "squeezed", "fitted", "converted", "paired")

EFFORTS = {"fast": 0, "balanced": 1, "thorough": 2}
"""What the search may cost on a layer that stays above the target, in descents:

fast        1: the first start only.
balanced    up to 11 under heavy skew (27 with three slots a rank, 7 where squeezing is worth it), else up to 3 unless
            far from the target. Where squeezing is worth it also up to 64 deals of what came out and 52 trades, 8
            deals and 24 trades of each of 8 fitted starts, and 200 trades and 32 deals of the best, a tenth of a
            millisecond each. With at most 64 slots the other starts, and conversions, of what is below: few items
            seldom come near the bound, and cost little. With at most 24 slots 12,000 steps of trying all, in a
            millisecond.
thorough    all of that, then again with up to 47 descents, 23 fitted starts, more deals, trades and steps, then
            conversions, and pruned restarts last.
"""
