"""What is known of a layer while it is planned: a row of whole numbers, one column each.

One table [layers, NUM_FACTS] goes in and comes out of ``plan_rows``; a row of it goes along as ``Layer.facts``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from equipoise.descent import EFFORTS, STAGES
from equipoise.descent.tuning import MOST_STEPS

FLOOR: Final = 0  # a load that the busiest rank need not go below
BOUND: Final = 1  # a lower bound on the busiest rank
TARGET: Final = 2  # a busiest rank that is near enough to that
LARGEST: Final = 3  # t*, the largest replica of the best counts, rounded up
REACHED: Final = 4  # the busiest rank of the best placement so far
AIM: Final = 5  # what other counts strive for where slots are few, or -1 where no further search makes sense
EFFORT: Final = 6  # a value of EFFORTS
SKIPPED: Final = 7  # bits of stages to leave out, to see what they are worth
STEPS: Final = 8  # the work spent so far, in steps of about a nanosecond: a turn of an inner loop, or of two
MOST: Final = 9  # what may be spent
FIRST_STAGE: Final = 10  # from here on: how often each of STAGES acted
SWAPS, PAIRS, CHAINS, REDEALT, RELAXED, SQUEEZED, FITTED, TRADED, PAIRED, EXACT = range(10, 20)
NUM_FACTS: Final = FIRST_STAGE + len(STAGES)

NEVER: Final = np.int64(2**62)  # a literal would be a type of its own to numba, and compiled for once more


def new_facts(floor: NDArray[np.int64], effort: str, without: tuple[str, ...] = ()) -> NDArray[np.int64]:
    """Return facts of layers that nothing is known of but a ``floor`` [layers] for the busiest rank.

    ``without`` names stages to leave out, for benchmarks.
    """
    facts = np.zeros((len(floor), NUM_FACTS), np.int64)
    facts[:, FLOOR], facts[:, REACHED] = floor, NEVER
    facts[:, EFFORT], facts[:, MOST] = EFFORTS[effort], MOST_STEPS[EFFORTS[effort]]
    facts[:, SKIPPED] = sum(1 << FIRST_STAGE + STAGES.index(name) for name in without)
    return facts
