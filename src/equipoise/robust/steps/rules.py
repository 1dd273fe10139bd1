"""What the versions of the steps have in common: signs, and how much a step must be worth."""

from __future__ import annotations

import numpy as np

__all__ = ["DEPTH", "EMPTY", "HALF", "HOT", "HOTTEST", "LEAST_GAIN", "LEFT", "MAX", "NOBODY", "SLACK"]

EMPTY = -1
MAX = np.int64(2**63 - 1)
NOBODY = np.int64(-1)
LEAST_GAIN = 0.003  # of the excess, for a transfer
SLACK = 1.0 + 1e-9  # what rounding may add to a bound on a gain
HALF = 0.5  # of a transfer, that what costs none counts as
HOTTEST, DEPTH = 4, 5
HOT = 0.5  # of the mean rank load: no replica that carries less needs others to make room
LEFT = 3  # transfers that a chain costs at least: with fewer left, none is tried
