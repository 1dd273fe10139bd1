"""Lower bounds on the busiest rank, which no placement beats: one file a proof, and the table of them."""

from equipoise.bounds.table import BOUNDS, lower_bounds

__all__ = ["BOUNDS", "lower_bounds"]
