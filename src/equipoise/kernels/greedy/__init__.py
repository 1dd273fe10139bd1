"""The plain greedy packing, the published planners' own. The contract.

    pack(weight, num_packs) -> pack_index, rank_in_pack

What ``equipoise.restarts`` returns for one restart without noise and without refinement, for all rows in one
call: items by descending weight, ties to the lowest, each to the lightest pack with room, ties to the lowest. With one
item a pack there is nothing to choose, and item i goes to pack i.
"""
