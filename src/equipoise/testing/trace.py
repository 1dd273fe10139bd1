"""A load that a real router made: that of the small model in ``examples/small_moe``, while its text changed twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from equipoise.load import LoadStatistics

__all__ = ["recorded_load"]


def recorded_load() -> LoadStatistics:
    """Return 18 windows of 10 steps, 3 layers of 16 experts: six windows each of code, documentation and tables.

    Examples
    --------
    >>> load = recorded_load()
    >>> load.num_windows, load.num_layers, load.num_logical_experts
    (18, 3, 16)
    """
    with np.load(Path(__file__).with_name("small_moe.npz")) as file:
        return LoadStatistics(file["counts"], source="examples/small_moe, served by four processes")
