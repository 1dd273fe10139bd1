"""The next placement from the one in force: what is left of it, what a budget of transfers buys, what stays where.

====================  =======================================================================
file                  idea
====================  =======================================================================
``in_force.py``       what is in force, beside the problem that the next placement answers
``budget.py``         how far the next placement may be from it
``replan.py``         the next placement within a budget, or anew with the fewest transfers; all re-planning ends here
``anew.py``           a plan made anew, with ranks and nodes renamed so that most stays
``remainder.py``      what is left of the placement in force, with every expert placed
``fill.py``           slots that nobody is in get the experts that have most to carry
``settle.py``         level enough with few transfers, quickly: what engines ask for by default
``pairs/``            the steps of that: contract, reference, native
``curves.py``         levelling the ranks within a budget, and what else the budget admits
``foreseen.py``       the same against the errors of a forecast
``levelling/``        the steps by which ranks are levelled: contract, reference, native
``frontier.py``       what each budget would buy
``in_time.py``        the next plan in time: as fast as without a placement in force, with the fewest transfers
``active.py``         which rank takes over which active replicas, and what sleeps in the slots that are left
``kept_in_time.py``   layers that stay, with replicas that sleep where that pays
``stay.py``           which layers stay, by what the budget says
``refresh.py``        new shares for a plan in force, without moving weights
``match_ranks.py``    ranks are alike: the one that holds most of a set of experts gets it
``keep_slots.py``     an expert that stays on its rank keeps its slot
====================  =======================================================================
"""

from equipoise.replan.keep_slots import keep_slots
from equipoise.replan.match_ranks import match_ranks
from equipoise.replan.remainder import count_transfers

__all__ = ["count_transfers", "keep_slots", "match_ranks"]
