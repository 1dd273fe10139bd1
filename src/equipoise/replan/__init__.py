"""The next placement from the one in force: what is left of it, what a budget of transfers buys, what stays where.

====================  =======================================================================
file                  idea
====================  =======================================================================
``remainder.py``      what is left of the placement in force on the cluster that is asked for
``replan.py``         the next placement within a budget of transfers, or anew with the fewest
``anew.py``           a plan made anew, with ranks and nodes renamed so that most stays
``budget.py``         levelling the ranks within a budget, and what else the budget admits
``levelling/``        the steps by which ranks are levelled: contract, reference, native
``frontier.py``       what each budget would buy
``match_ranks.py``    ranks are alike: the one that holds most of a set of experts gets it
``keep_slots.py``     an expert that stays on its rank keeps its slot
====================  =======================================================================
"""

from equipoise.replan.keep_slots import keep_slots
from equipoise.replan.match_ranks import match_ranks
from equipoise.replan.remainder import count_transfers

__all__ = ["count_transfers", "keep_slots", "match_ranks"]
