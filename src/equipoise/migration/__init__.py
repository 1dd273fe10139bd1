"""What moves when one placement follows another: the next placement, the schedule of transfers, their execution.

====================  =======================================================================
file                  idea
====================  =======================================================================
``remainder.py``      what is left of the placement in force on the cluster that is asked for
``replan.py``         the next placement within a budget of transfers, or anew with the fewest
``frontier.py``       what each budget would buy
``match_ranks.py``    ranks are alike: the one that holds most of a set of experts gets it
``keep_slots.py``     an expert that stays on its rank keeps its slot
``rounds.py``         the rounds of one layer: which slot gets its expert from where, and when
``schedule.py``       the rounds of all layers, their bytes and their time
``tables.py``         what each rank tells the others when the process group no longer can
``peers.py``          how ranks agree, when all are well and when some are gone
``weights.py``        the tensors of one rank: rows, a spare, buffers
``steps.py``          what slots and spares hold as rounds pass
``rescue.py``         when ranks are gone, experts without a slot get one
``execute.py``        the migration itself, between forward passes
====================  =======================================================================
"""

from equipoise.migration.keep_slots import keep_slots
from equipoise.migration.match_ranks import match_ranks
from equipoise.migration.remainder import count_transfers

__all__ = ["count_transfers", "keep_slots", "match_ranks"]
