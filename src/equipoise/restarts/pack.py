"""Run the packing kernel that was asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_numpy
from equipoise.backends import Backend
from equipoise.errors import InvalidInputError
from equipoise.restarts import counter
from equipoise.restarts.settings import Settings

__all__ = ["pack_items"]

Ints = NDArray[np.int32]
# A load times a constant may round to weights that differ in the last bit; that must not change the random
# numbers of the whole row. Rows that agree in the leading bits share theirs, which does no harm.
KEY_SHIFT = 16


def pack_items(
    weight: NDArray[np.int64], num_packs: int, settings: Settings, seed: int, backend: Backend, threads: int | None
) -> tuple[Ints, Ints]:
    """Return the pack of each item and its place there: int32 arrays, shape (rows, items).

    ``weight`` int64 [rows, items] comes from ``to_fixed_point``; ``num_packs`` divides the items. With one
    item a pack there is nothing to choose, and item i goes to pack i.
    """
    rows, items = weight.shape
    if items == num_packs:
        return np.tile(np.arange(items, dtype=np.int32), (rows, 1)), np.zeros((rows, items), dtype=np.int32)
    kernel = backend.load()
    options = {"threads": threads} if backend.name == "numba" else {}
    if backend.name in ("torch", "triton"):
        options = {"device": kernel.default_device()}
    key = counter.row_key(weight >> KEY_SHIFT, check_seed(seed))
    pack_index, rank_in_pack = kernel.pack(weight, num_packs, settings, key, **options)
    return as_numpy(pack_index, "pack_index"), as_numpy(rank_in_pack, "rank_in_pack")


def check_seed(seed: int) -> int:
    """Return ``seed`` if it is a whole number that 64 bits hold, or say so."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= seed.__index__() < 2**64:
        raise InvalidInputError(f"seed is {seed!r}; it must be a whole number from 0 to 2**64 - 1.")
    return seed.__index__()
