"""Pruned restarts: pack weighted items into packs of equal size. The contract of all implementations.

    pack(weight, num_packs, settings, key) -> pack_index, rank_in_pack

``weight`` int64 [rows, items], not negative, each row summing to at most 2**52; ``key`` one 32-bit
word per row; ``settings`` a ``Settings``. Returns two int32 arrays [rows, items]: the pack of each
item and its place in the pack, each place taken once.

Every implementation makes the same candidates and returns the same plan:

starts
    Restart ``r`` orders the items by ``weight * (1 + s_r * u)`` in float64, descending, ties to the
    lowest item; ``s_r = noise * r / (restarts - 1)`` and ``u`` is ``counter.uniforms``. In that order
    each item goes to the lightest pack with room, ties to the lowest pack.
prune
    Keep the ``refined`` restarts with the smallest imbalance (heaviest - lightest pack), ties to
    the lowest restart. Restarts that coincide count once: those that put the same weights
    together, whatever the packs are called.
refine
    At most ``swaps`` times: among the ``extremes`` heaviest and lightest packs (ties to the lowest
    pack), for each pair of a heavy pack A and a light pack B that differ, the items u in A and v in B
    whose ``d = w_u - w_v`` is nearest to half of ``D = W_A - W_B``, with 0 < d < D (ties to the lowest
    u, then v). Of all pairs, exchange the one with the largest ``d * (D - d)`` in float64, ties to
    the first pair, heaviest A first, then lightest B. Stop when there is none.
select
    The refined candidate with the smallest imbalance, ties to the one that was pruned first.

====================  =======================================================================
file                  idea
====================  =======================================================================
``settings.py``       how widely to search
``counter.py``        randomness without state; ``counter_torch.py`` on tensors
``reference.py``      reads as the specification; ``numba.py``, ``torch.py`` and ``triton.py`` are held to it
``refine.py``         the exchanges of ``numba.py``
``pack.py``           run the implementation that was asked for
``tensors.py``        what surrounds packing, on tensors
``on_device.py``      from tensors to tensors: nothing leaves the device
====================  =======================================================================
"""

from equipoise.restarts.pack import check_seed, pack_items
from equipoise.restarts.settings import Settings

__all__ = ["Settings", "check_seed", "pack_items"]
