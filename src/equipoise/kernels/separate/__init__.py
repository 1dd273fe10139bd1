"""Two replicas of an expert on one rank, moved apart. The contract.

    separate(held, weight)

``held`` int [ranks, slots], the expert in each slot of one row, changed in place; ``weight`` int64 [experts]. Each
exchange takes a duplicate off its rank, for an expert that the rank does not hold, from a rank
that does not hold the duplicate: it removes one duplicate and adds none. Of these it takes the
one that leaves the smaller heaviest of the two ranks, ties to the lowest rank, then slot. Where no
exchange is left the row is dealt again, each expert's replicas to consecutive ranks.
"""
