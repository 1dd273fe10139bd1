"""vLLM-Ascend's door for shares: the function that says to which slot a rank sends the tokens of each expert.

Model runner 1 gives each source rank one slot for each expert, ``generate_log2phy_map``. In its place stands one that
deals out the ranks by the shares of the placement it is called with; for any other placement, and for experts whose
replicas have even shares, it returns what vLLM-Ascend's own does. So shares come in steps of one rank.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from equipoise.dispatch.tickets import assign_ranks

if TYPE_CHECKING:
    from equipoise.dispatch import Shares

__all__ = ["FUNCTION", "MODULES", "PARAMETERS", "SharedRanks", "open_door"]

MODULES, FUNCTION = ("vllm_ascend.eplb.core.eplb_utils", "vllm_ascend.eplb.core.eplb_worker"), "generate_log2phy_map"
PARAMETERS = ("global_expert_map", "ep_rank", "tp_size")
EVEN = 1e-6  # shares that differ by less are even


class SharedRanks:
    """The shares of the last placement, by which ``generate_log2phy_map`` is answered."""

    def __init__(self) -> None:
        self._known: dict[bytes, Any] = {}

    def remember(self, shares: Shares | None, table: Any, num_experts: int) -> None:
        """Keep the shares for a placement int [layers, slots]; with None it goes back to even ones."""
        known: dict[bytes, Any] = {}
        for layer, row in enumerate(np.array(table, dtype=np.int64) if shares is not None else ()):
            assert shares is not None
            values = shares.values[layer]
            same = known.setdefault(row.tobytes(), values)
            if same is None or (same != values).any():
                known[row.tobytes()] = None  # a layer alone does not say which it is
        self._known = known

    def find(self, row: Any) -> Any:
        """Return the shares of the slots of one layer, int64 [slots], or None where none are known."""
        return self._known.get(row.tobytes())


def open_door(shared: SharedRanks) -> str | None:
    """Put ours in the place of vLLM-Ascend's function, or return why that cannot be; any number of times."""
    try:
        modules = [importlib.import_module(name) for name in MODULES]
        builtin = getattr(modules[0], FUNCTION)
        if hasattr(builtin, "replaced_by_equipoise"):
            return None
        found = tuple(inspect.signature(builtin).parameters)
        if found != PARAMETERS or getattr(modules[1], FUNCTION) is not builtin:
            return f"its {FUNCTION} takes ({', '.join(found)}), and equipoise knows ({', '.join(PARAMETERS)})"
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return f"{FUNCTION} is not as expected ({type(error).__name__}: {error})"

    def generate_log2phy_map(global_expert_map: Any, ep_rank: int, tp_size: int | None = None) -> Any:
        """Return the slot of each expert for one rank: int32 [experts]."""
        chosen = builtin(global_expert_map, ep_rank, tp_size)
        local = np.stack([np.asarray(rank) for rank in global_expert_map])
        width = int((local[0] >= 0).sum())
        row = np.full(len(local) * width, -1, np.int64)
        rank, expert = np.nonzero(local >= 0)
        row[rank * width + local[rank, expert]] = expert
        values = shared.find(row)
        for each in () if values is None else range(local.shape[1]):
            slots = np.flatnonzero(row == each)
            if len(slots) > 1 and np.ptp(values[slots]) > EVEN:
                chosen[each] = int(slots[assign_ranks(values[slots], slots // width, len(local))[ep_rank]])
        return chosen

    generate_log2phy_map.replaced_by_equipoise = builtin  # type: ignore[attr-defined]
    for module in modules:
        setattr(module, FUNCTION, generate_log2phy_map)
    return None
