"""Run the packing kernel that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count
from equipoise.arrays import as_numpy
from equipoise.backends import Backend
from equipoise.errors import IndivisibleError, InvalidInputError, shown
from equipoise.restarts import counter
from equipoise.restarts.settings import Settings

__all__ = ["pack_items"]

Ints = NDArray[np.int32]
# A load times a constant may round to weights that differ in the last bit; that must not change the random
# numbers of the whole row. Rows that agree in the leading bits share theirs, which does no harm.
KEY_SHIFT = 16
LARGEST_SUM = 2**52  # of a row: what implementations add up exactly


def pack_items(
    weight: NDArray[np.int64], num_packs: int, settings: Settings, seed: int, backend: Backend, threads: int | None
) -> tuple[Ints, Ints]:
    """Return the pack of each item and its place there: int32 arrays, shape (rows, items).

    ``weight`` int64 [rows, items] comes from ``to_fixed_point``; ``num_packs`` divides the items. With one
    item a pack there is nothing to choose, and item i goes to pack i.
    """
    num_packs = count(num_packs, "num_packs")
    as_instance(settings, Settings, "settings", "a Settings(...)")
    as_instance(backend, Backend, "backend", "one that choose_backend returns")
    weight = np.ascontiguousarray(_checked(weight, num_packs))
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


def _checked(weight: Any, num_packs: int) -> NDArray[np.int64]:
    """Return weights that kernels may add up, or say what they must be."""
    array = as_numpy(weight, "weight")
    if array.dtype != np.int64 or array.ndim != 2 or array.size == 0 or array.min() < 0:
        raise InvalidInputError(
            f"weight is {shown(array)}; it must be an int64 array of shape (rows, items), not negative, as "
            "to_fixed_point returns it."
        )
    if array.shape[1] % num_packs:
        raise IndivisibleError(f"{array.shape[1]} items do not fill {shown(num_packs)} packs evenly.")
    if array.max() > LARGEST_SUM // array.shape[1] and array.sum(axis=1, dtype=np.float64).max() > LARGEST_SUM:
        raise InvalidInputError("a row of weight sums to more than 2**52; scale it down, as to_fixed_point does.")
    return array


def check_seed(seed: int) -> int:
    """Return ``seed`` if it is a whole number that 64 bits hold, or say so."""
    return count(seed, "seed", least=0, most=2**64 - 1)
