"""Planning in time: counts, packing and the active set together, for the expected time of the busiest rank.

================  ============================================================================
file              idea
================  ============================================================================
``plan.py``       from a problem to slots and active replicas; which kernels run on which layers
``order.py``      experts by descending tokens, and what an only replica of each takes
``layer.py``      one layer after the other: counts from few to many, the best that is found
``deal.py``       a first placement: the costliest replica first, each to the lightest rank
``descent.py``    swaps, and replicas that fall asleep or wake, each of which helps the busiest rank
``fill.py``       dormant replicas for slots that no active one needs
``several.py``    one placement for several batch sizes: what each may take, and where search starts
``nested.py``     search for several batch sizes at once, until limits are met, and below them
``nest.py``       one layer meanwhile: slots, from which batch on each is active, and what they cost in each
``thin.py``       a start of it: one replica of each expert for small batches
``settled.py``    a placement that stays: which of its replicas sleep in which batches
``bound.py``      the proved bound, its argument and domain
``ranks.py``      the active replicas of a layer while it is planned
``costs.py``      the expected time of a replica as a whole number
``certificate.py``  the noun: expected time, bound and shares for each batch size
================  ============================================================================

Costs are whole numbers, made of the expected time of ``equipoise.latency.curve``, which uses no more than + - * / and
square roots in a fixed order; what is measured on the way is float64 in a fixed order. There is no randomness. Rows are
independent, so their order and the number of threads do not matter.
"""

from __future__ import annotations

from equipoise.timing.certificate import TimeCertificate, certify_time

__all__ = ["TimeCertificate", "certify_time"]
