"""Where: items into packs of equal size, by pruned restarts.

Packing is four steps, starts -> prune -> refine -> select. ``equipoise.kernels.packing`` states them
as a contract; ``equipoise.kernels.packing.reference`` reads as the specification.
"""

from equipoise.kernels.packing import Settings
from equipoise.packing.pack import check_seed, pack_items
from equipoise.packing.separate import separate_duplicates

__all__ = ["Settings", "check_seed", "pack_items", "separate_duplicates"]
