"""HYGON's SGLang, for ``--init-expert-location`` with ``--ep-dispatch-algorithm lp``: a map with what each slot gets.

    {"physical_to_logical_map": int64 [L, P], "physical_mass": float32 [L, P]}        file.pt

``physical_mass`` is written as the share of its expert's tokens that each slot gets, which sums to 1 over the slots of
an expert. There is a row for every hidden layer of the model, dense layers too, as in SGLang's own maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.dispatch import Shares
from equipoise.engines.layered import LayeredPlacement
from equipoise.engines.sglang_maps import KEY, rows_of, save_torch, table_of
from equipoise.errors import FileFormatError, listed
from equipoise.placement import Placement

__all__ = ["is_mass", "read_mass", "write_mass"]

MASS = "physical_mass"


def is_mass(document: Any) -> bool:
    """Whether a decoded torch document is a map with masses."""
    return isinstance(document, Mapping) and MASS in document


def read_mass(document: Mapping[Any, Any], path: Path) -> LayeredPlacement:
    """Return the placement in a map with masses, without the masses; it says nothing of ranks.

    Raises
    ------
    FileFormatError
        If there is another key, or none, or the map breaks a rule.
    """
    if set(document) != {KEY, MASS}:
        raise FileFormatError(f"{path} has the keys {listed(document)}; it must have {listed((KEY, MASS))}.")
    return table_of(document[KEY], path)


def write_mass(placement: LayeredPlacement) -> bytes:
    """Return the map as a torch file; without shares, they are even."""
    table = rows_of(placement)
    mass = Shares.even(Placement(table, 1, placement.num_logical_experts)).values.copy()
    if placement.shares is not None:
        mass[list(placement.layer_ids)] = placement.shares
    return save_torch(
        lambda torch: {
            KEY: torch.from_numpy(table.astype(np.int64)),
            MASS: torch.from_numpy(mass.astype(np.float32)),
        }
    )
