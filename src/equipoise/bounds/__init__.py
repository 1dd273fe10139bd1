"""Lower bounds on the busiest rank, which no placement beats: one file a bound, with its proof and its code.

====================  =======================================================================
file                  idea
====================  =======================================================================
``bound.py``          what a bound is, and what can hold the busiest rank up
``table.py``          the table of bounds, and how it is read
``mean.py``           some rank carries at least the mean
``replica.py``        slots are whole: some replica is large
``grouping.py``       groups are whole: some node is full; ``grouping_reference.py``, in plain Python
``pigeonhole.py``     whole tokens, and no slot to spare: some rank is crowded
``threshold.py``      large replicas need small company
``company.py``        a large replica leaves room for the other slots of its rank
``hottest.py``        what each count of the hottest expert leaves; ``hottest_reference.py``, in plain Python
====================  =======================================================================
"""

from equipoise.bounds.bound import GROUPS, LIFTED_BY, MEAN, SLOTS, Bound
from equipoise.bounds.table import BOUNDS, lower_bounds, raise_floor

__all__ = ["BOUNDS", "GROUPS", "LIFTED_BY", "MEAN", "SLOTS", "Bound", "lower_bounds", "raise_floor"]
