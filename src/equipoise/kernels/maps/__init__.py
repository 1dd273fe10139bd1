"""What follows from the expert in each slot. The contract of all implementations.

    invert(physical_to_logical, num_experts) -> logical_to_physical, replica_count
    count_duplicates(physical_to_logical, num_experts, num_ranks) -> num_duplicates

``physical_to_logical`` int32 [layers, slots], from -1, an empty slot, to ``num_experts`` - 1. ``replica_count`` int32
[layers, experts]; ``logical_to_physical`` int32 [layers, experts, largest replica count, at least 1], the slots of
each expert, ascending, padded with -1. ``num_duplicates`` int64 [layers]: the slots whose rank, of ``num_ranks`` with
consecutive slots, holds the same expert in a lower slot.
"""
