"""Replica counts: each spare slot goes where it helps most. The contract of all implementations.

    replicate(weight, num_slots, most) -> physical_to_logical, replica_count

``weight`` int64 [rows, experts], not negative. ``physical_to_logical`` int32 [rows, num_slots]: first one
slot for each expert in order, then the redundant ones in the order in which they were given;
``replica_count`` int32 [rows, experts]. Each spare slot goes to the expert with the largest
``weight / replica_count`` in float64, ties to the lowest expert, as long as it has fewer than ``most``
replicas: the number of ranks, since a second replica on a rank adds nothing. ``num_slots`` is at most
``experts * most``.

This is d'Hondt's apportionment with one seat for everybody, and no other counts reach a smaller
largest replica load: if every replica is to weigh at most t, expert e needs max(1, ceil(w_e / t)),
and the rule gives no expert more than that before all have what they need.
"""
