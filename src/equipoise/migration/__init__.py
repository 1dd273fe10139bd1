"""What moves when one placement follows another: the schedule of transfers, and their execution.

====================  =======================================================================
file                  idea
====================  =======================================================================
``rounds.py``         the rounds of one layer: which slot gets its expert from where, and when
``rounds_reference.py``  the same in plain Python
``schedule.py``       the rounds of all layers, their bytes and their time
``tables.py``         what each rank tells the others when the process group no longer can
``peers.py``          how ranks agree, when all are well and when some are gone
``weights.py``        the tensors of one rank: rows, a spare, buffers
``steps.py``          what slots and spares hold as rounds pass
``rescue.py``         when ranks are gone, experts without a slot get one
``execute.py``        the migration itself, between forward passes
``keep_slots.py``     a name of before
====================  =======================================================================
"""

from equipoise.migration.keep_slots import keep_slots
from equipoise.replan.match_ranks import match_ranks
from equipoise.replan.remainder import count_transfers

__all__ = ["count_transfers", "keep_slots", "match_ranks"]
