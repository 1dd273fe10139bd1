"""What moves when one placement follows another: the next placement, the schedule of transfers, their execution.

====================  =======================================================================
file                  idea
====================  =======================================================================
``remainder.py``      what is left of the placement in force on the cluster that is asked for
``replan.py``         the next placement within a budget of transfers, or anew with the fewest
``frontier.py``       what each budget would buy
``match_ranks.py``    ranks are alike: the one that holds most of a set of experts gets it
``keep_slots.py``     an expert that stays on its rank keeps its slot
====================  =======================================================================
"""

from equipoise.migration.keep_slots import keep_slots
from equipoise.migration.match_ranks import match_ranks
from equipoise.migration.remainder import count_transfers

__all__ = ["count_transfers", "keep_slots", "match_ranks"]
