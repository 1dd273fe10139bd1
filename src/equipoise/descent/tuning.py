"""What the search may cost and how it goes about: every number that was chosen by trying, and what it is for.

``benchmarks/stages.py`` shows what a stage is worth; ``docs/algorithm.md`` has the words. Rows indexed by effort are
(fast, balanced, thorough).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPREAD_LARGEST, SPREAD_HALVES, SPREAD_COLDEST, SPREAD_FITTING = 0, 1, 2, 3
"""How spare slots are spent: second replicas for the largest experts that have one; to the expert whose replicas a slot
makes smaller by most; second replicas for the coldest experts, which makes light company for heavy replicas; second
replicas for the largest experts whose halves are such company, light enough for the rank of the largest replica to stay
within the target."""
MOST_STEPS = np.array([8_000_000, 14_000_000, 400_000_000])
"""By effort, the work on one layer, in steps of about a nanosecond: a layer of any load stays within them."""

# Sizes. Slots are counted over all ranks, unless a line says otherwise.
FEW = 24  # with so few, all counts and placements are tried
SMALL = 64  # few items seldom come near the bound, and all that can be tried costs little
MOST_SLOTS, LARGE = 16, 1024  # slots of a rank, and of all: squeezing takes their square

# Distances above the target, in the room between bound and target.
FAR = 3  # beyond it, other counts are tried however many were tried already
NEAR = 16  # so near, squeezing is worth it
TRADE_NEAR = 2  # what a trade leads to is squeezed if it is so near

# Goals below the target, in parts of that room: where a layer is above the target, others may be below, for the mean.
RELAX_BELOW, RELAX_BELOW_THREE = 3, 8  # the latter with three slots a rank, where so little more is out of reach
DEAL_BELOW, TRADE_BELOW = 32, 16


def _starts(*rows: tuple[float, int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


def _of(rule: int, *shares: float) -> list[tuple[float, int]]:
    return [(share, rule) for share in shares]


# Other counts to start from: how far the largest replica may rise from t* towards the target, and how the slots that
# this frees are spent. Where t* exceeds half a rank, more than R such replicas cannot be told apart, and much must
# change: the first nine settle nearly all layers, the most by the first; the others are for few slots.
_FIRST = (
    (0.92, SPREAD_LARGEST), (0.72, SPREAD_FITTING), (1.0, SPREAD_HALVES), (0.96, SPREAD_FITTING),
    (1.0, SPREAD_LARGEST), (0.84, SPREAD_FITTING), (1.0, SPREAD_COLDEST), (0.84, SPREAD_LARGEST), (1.0, SPREAD_FITTING),
)  # fmt: skip
SKEWED = _starts(
    *_FIRST,
    *_of(SPREAD_LARGEST, 0.3, 0.96, 0.6, 0.9, 0.45, 0.8, 0.15),
    *_of(SPREAD_COLDEST, 0.2, 0.8),
    *_of(SPREAD_HALVES, 0.45, 0.96, 0.8, 0.6, 0.9, 0.3, 0.15),
    *_of(SPREAD_COLDEST, 0.1, 0.4, 0.6, 0.9, 0.96),
    *_of(SPREAD_LARGEST, 0.05, 0.1, 0.2, 0.25, 0.35, 0.4, 0.5, 0.55, 0.65, 0.7, 0.75, 0.85, 0.93, 0.98, 0.99),
)
# Elsewhere small changes are often enough.
LEVEL = _starts(
    (0.15, SPREAD_LARGEST),
    (0.5, SPREAD_HALVES),
    *_FIRST,
    *(
        (share, rule)
        for share in (0.15, 0.3, 0.05, 0.1, 0.2, 0.25, 0.35, 0.4)
        for rule in (SPREAD_LARGEST, SPREAD_HALVES, SPREAD_COLDEST)
    ),
)
# Starts made for a busiest rank that is the third number of rooms above the bound: counts that leave some slack often
# lead to the target by trades, though those made for it do not.
_FITTED = (
    (0.08, SPREAD_LARGEST, 2), (0.3, SPREAD_HALVES, 8), (0.72, SPREAD_FITTING, 4), (1.0, SPREAD_HALVES, 16),
    (0.96, SPREAD_FITTING, 2), (0.6, SPREAD_LARGEST, 8), (0.92, SPREAD_LARGEST, 4), (0.84, SPREAD_FITTING, 1),
    *((share, rule, aim) for aim in (4, 16, 1) for share, rule in (
        (0.08, SPREAD_LARGEST), (0.96, SPREAD_FITTING), (0.6, SPREAD_LARGEST), (0.92, SPREAD_LARGEST),
        (0.84, SPREAD_FITTING))),
)  # fmt: skip
FITTED = (*_starts(*((share, rule) for share, rule, _ in _FITTED)), np.array([aim for *_, aim in _FITTED]))

STARTS = np.array([
    [0, 5, len(SKEWED[0])],   # of SKEWED, where squeezing is worth it: more comes later
    [0, 25, len(SKEWED[0])],  # of SKEWED, with three slots a rank, which are not squeezed
    [0, 9, len(SKEWED[0])],   # of SKEWED, elsewhere
    [0, 11, len(LEVEL[0])],   # of LEVEL
    [0, 8, len(FITTED[0])],   # of FITTED
])  # fmt: skip
"""How many starts are tried, by effort."""
STARTS_SQUEEZED, STARTS_THREE, STARTS_SKEWED, STARTS_LEVEL, STARTS_FITTED = range(5)
ALWAYS = np.array([[0, 1, len(LEVEL[0])], [0, 0, len(LEVEL[0])], [0, 2, len(LEVEL[0])]])
"""Of LEVEL, with 2, 3 and more slots a rank, by effort; the others only while far: what is nearly level needs other
means, not other counts."""

POLISH = np.array([
    [[4, 4, 4], [0, 64, 128], [0, 52, 200]],  # the best placement so far
    [[NEAR, NEAR, NEAR], [0, 8, 8], [0, 24, 24]],  # what a fitted start led to
    [[0, 0, 0], [0, 0, 0], [0, 200, 400]],  # the best of all these, if it is still above the target
    [[4, 4, 4], [0, 32, 32], [0, 0, 0]],  # and once more, if any of it helped
    [[NEAR, NEAR, NEAR], [0, 1, 128], [0, 0, 0]],  # all that there is where no slot is spare; it seldom helps
])  # fmt: skip
"""How a placement is polished: how near the target it must be for deals, then deals, then trades, each by effort."""
POLISH_FIRST, POLISH_FITTED, POLISH_LAST, POLISH_AGAIN, POLISH_PACKED = range(5)

SMALL_TRADES = 60  # in small layers, after all else
PAIRING_TRIES = np.array([3, 4, 16])  # values of T, by effort, where ranks have two slots
EXACT_STEPS = np.array([0, 12_000, 200_000])  # of 75 ns, by effort, where slots are so few that all is tried
