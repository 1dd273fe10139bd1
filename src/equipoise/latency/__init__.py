"""What tokens cost in time: the model of one rank, its presets with sources, and how it is fitted.

    model = eq.LatencyModel.preset("h200")
    model.rank_time(tokens), model.expected_rank_time(mean_tokens)

================  ============================================================================
file              idea
================  ============================================================================
``model.py``      the noun: four constants, the time of a rank, its expectation
``presets.py``    the table of constants by GPU and phase, each with its source and error
``fit.py``        constants from measured times
``curve.py``      the expected time of a slot against its mean tokens, native
``reference.py``  the same in plain Python, to hold it to
``measure.py``    times a grouped expert GEMM where torch finds a CUDA device
================  ============================================================================
"""

from __future__ import annotations

from equipoise.latency.model import LatencyModel
from equipoise.latency.presets import GPUS, PHASES, SHAPES

__all__ = ["GPUS", "PHASES", "SHAPES", "LatencyModel"]
