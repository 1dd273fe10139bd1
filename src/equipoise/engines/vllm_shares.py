"""vLLM's door for shares: the function that makes the tables by which its router chooses a replica.

vLLM sends the token with number t in its batch to entry ``(t * 2654435769 mod 2**32) mod count`` of the list of its
expert, the same on every rank. The lists and their lengths come from one function, ``compute_logical_maps``, which is
called wherever a placement comes into force. In its place stands one that lists slots more than once, by the shares
that belong to the placement it is called with; for any other placement it returns what vLLM's own does.
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from equipoise.dispatch.tickets import list_slots

if TYPE_CHECKING:
    from equipoise.dispatch import Shares

__all__ = ["MODULE", "PARAMETERS", "SharedMaps", "close_door", "open_door"]

MODULE, FUNCTION = "vllm.distributed.eplb.eplb_state", "compute_logical_maps"
PARAMETERS = ("physical_to_logical_map", "num_logical_experts")
WIDTH = 64  # entries of an uneven list: of powers of two, whose low bits the hash only permutes, the finest in the docs
MULTIPLIER = 2654435769


class SharedMaps:
    """The lists of the last placement of each shape, by which ``compute_logical_maps`` is answered."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], Any] = {}

    def remember(self, shares: Shares | None, table: Any, num_experts: int) -> None:
        """Keep the lists for a placement int [layers, slots]; with None it goes back to even shares."""
        held = np.array(table, dtype=np.int64)
        key = (*held.shape, num_experts)
        if shares is None:
            self._known.pop(key, None)
            return
        lists = list_slots(shares, WIDTH, step=MULTIPLIER % WIDTH)
        rows: dict[bytes, int | None] = {}
        for layer, row in enumerate(held):
            same = rows.setdefault(row.tobytes(), layer)
            if same is not None and same != layer and (shares.values[same] != shares.values[layer]).any():
                rows[row.tobytes()] = None  # a layer alone does not say which it is
        self._known[key] = (held, rows, *lists)

    def find(self, table: Any, num_experts: int) -> tuple[Any, Any] | None:
        """Return lists and their lengths for a placement of all layers, or of one; None where none are known."""
        held = np.ascontiguousarray(table, dtype=np.int64)
        if held.ndim == 2:
            known = self._known.get((*held.shape, num_experts))
            return known[2:] if known is not None and np.array_equal(known[0], held) else None
        for (_, slots, experts), (_, rows, lists, count) in list(self._known.items()):
            layer = rows.get(held.tobytes()) if (slots, experts) == (len(held), num_experts) else None
            if layer is not None:
                return lists[layer], count[layer]
        return None


def open_door(maps: SharedMaps) -> str | None:
    """Put ours in the place of vLLM's function, or return why that cannot be; any number of times."""
    try:
        module = importlib.import_module(MODULE)
        builtin = getattr(module, FUNCTION)
        found = tuple(inspect.signature(builtin).parameters)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return f"{MODULE} is not as expected ({type(error).__name__}: {error})"
    if hasattr(builtin, "replaced_by_equipoise"):
        builtin = builtin.replaced_by_equipoise
    elif found != PARAMETERS:
        return f"its {FUNCTION} takes ({', '.join(found)}), and equipoise knows ({', '.join(PARAMETERS)})"

    def compute_logical_maps(physical_to_logical_map: Any, num_logical_experts: int) -> tuple[Any, Any]:
        """Return logical_to_physical_map and logical_replica_count, as vLLM's own does, by the shares in force."""
        plain, replicas = builtin(physical_to_logical_map, num_logical_experts)
        found = maps.find(physical_to_logical_map.numpy(), num_logical_experts)
        if found is None:
            return plain, replicas
        import torch

        lists, count = (torch.from_numpy(array).to(plain.dtype) for array in found)
        return lists, count.to(replicas.dtype)

    compute_logical_maps.replaced_by_equipoise = builtin  # type: ignore[attr-defined]
    setattr(module, FUNCTION, compute_logical_maps)
    return None


def close_door() -> None:
    """Put vLLM's own function back, if ours is in its place."""
    module = importlib.import_module(MODULE)
    builtin = getattr(getattr(module, FUNCTION, None), "replaced_by_equipoise", None)
    if builtin is not None:
        setattr(module, FUNCTION, builtin)
