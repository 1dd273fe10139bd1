"""What the kernels of planning in time do, in plain Python: slow, and held to them bit for bit.

    plan_layer(curve, tokens, shape, found, given, max_gap)   ``layer.plan_rows`` of one layer, and its bound
    fill_layer(curve, tokens, held)                           ``fill.fill_rows``, on one node
    thin_layer(curve, tokens, held, later)                    ``thin.thin_rows``
    nest_layer(curve, tokens, limits, held, level, steps)     ``nested.nest_rows``, limits lowered, on one node

Only the curve is shared, which has a reference of its own: ``latency/reference.py``. Experts are numbers, ranks lists
of slots, and what a replica costs is asked for each time.
"""

from __future__ import annotations

from equipoise.timing.reference.layer import fill_layer, plan_layer, thin_layer
from equipoise.timing.reference.nested import nest_layer

__all__ = ["fill_layer", "nest_layer", "plan_layer", "thin_layer"]
