"""vLLM-Ascend: a policy object, and the JSON maps that its expert_map_path names.

The engine has a closed table of policies, chosen by number. ``register`` puts ours in the place of number 1,
``DefaultEplb``, when ``EQUIPOISE_VLLM_ASCEND=1`` asks for it; see ``docs/engines/vllm-ascend.md``.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance
from equipoise.arrays import as_numpy
from equipoise.decode.tables import whole_numbers
from equipoise.engines.layered import LayeredPlacement, refuse_duplicates
from equipoise.engines.settings import Settings
from equipoise.engines.vllm_ascend_shares import SharedRanks, open_door
from equipoise.errors import FileFormatError, InvalidInputError, shown

__all__ = ["PREFIX", "EquipoisePolicy", "is_map", "read_map", "register", "write_map"]

PREFIX = "EQUIPOISE_VLLM_ASCEND"
FACTORY, REPLACED = "vllm_ascend.eplb.core.policy.policy_factory", "DefaultEplb"
PARAMETERS = ("self", "current_expert_table", "expert_workload")
log = logging.getLogger("vllm.equipoise")
SHARED = SharedRanks()
"""Shares of the last plan, which the engine's maps ask for in the process that plans."""


class EquipoisePolicy:
    """A planner for vLLM-Ascend.

    Parameters
    ----------
    settings : Settings or None, default None
        None reads the environment, as the engine makes a policy without arguments.

    Examples
    --------
    >>> policy = EquipoisePolicy(Settings())
    >>> change, priority, table = policy.rebalance_experts([[[0, 1], [2, 0]]], [[[4, 9], [1, 4]]])
    >>> int(change), priority.tolist(), table.shape
    (1, [0], (1, 2, 2))
    """

    by_equipoise = True

    def __init__(self, settings: Settings | None = None) -> None:
        from equipoise.engines.planner import Planner

        settings = Settings.from_environment(PREFIX) if settings is None else settings
        self.settings = as_instance(settings, Settings, "settings", "a Settings(...), or None")
        self.settings.check()
        if (self.settings.windows or 1) > 1:
            raise InvalidInputError(
                f"{PREFIX}_WINDOWS is {shown(self.settings.windows)}; vLLM-Ascend gives its planner no way to agree on "
                "past loads. Leave it out."
            )
        self._planner = Planner(self.settings, PREFIX, log)

    def rebalance_experts(
        self, current_expert_table: Any, expert_workload: Any
    ) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Return whether anything changes, the layers that gain most first, and the next table.

        Parameters
        ----------
        current_expert_table : int array, shape (num_layers, num_ranks, slots_per_rank)
            The expert in each slot: all slots filled, every expert somewhere.
        expert_workload : array, shape (num_layers, num_ranks, slots_per_rank)
            Tokens that each slot received; more axes in front are windows, and summed.

        Returns
        -------
        change : int
            1 if any slot changes, else 0.
        priority : int64 array, shape (num_layers,)
            Layers by busiest rank after / before, least first, ties to the lowest layer.
        new_table : int64 array, shape (num_layers, num_ranks, slots_per_rank)
            The engine's three rules hold in every layer that differs from the current one: every expert is
            placed, none twice on a rank, and one that stays on its rank keeps its slot.

        Raises
        ------
        InvalidInputError
            If the table is not full and complete, or the workload has another shape.
        """
        from equipoise.placement import Placement

        table, tokens = _checked(current_expert_table, expert_workload)
        layers, ranks, slots_per_rank = table.shape
        held = table.reshape(layers, -1)
        experts = int(held.max()) + 1
        load = np.zeros((layers, experts))
        np.add.at(load, (np.arange(layers)[:, None], held), tokens.reshape(layers, -1))
        asked = (load, ranks * slots_per_rank, 1, 1, ranks, held)
        placement, shares = self._planner.place_and_share(*asked, separate=True)
        new = placement.physical_to_logical
        SHARED.remember(shares, new, experts)
        before = Placement(held, ranks, experts).rank_load(load).max(axis=1)
        after = (placement if shares is None else shares).rank_load(load).max(axis=1)
        ratio = np.divide(after, before, out=np.ones(layers), where=before > 0)
        change = int(not np.array_equal(new, held))
        return change, np.argsort(ratio, kind="stable"), new.astype(np.int64).reshape(table.shape)


def _checked(current: Any, workload: Any) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    table, tokens = as_numpy(current, "current_expert_table"), as_numpy(workload, "expert_workload")
    if table.ndim != 3 or table.size == 0 or table.dtype.kind not in "iu":
        raise InvalidInputError(
            f"current_expert_table has shape {table.shape} and type {table.dtype}; it must hold integers in the shape "
            "(layers, ranks, slots)."
        )
    if tokens.shape[-3:] != table.shape:
        raise InvalidInputError(
            f"expert_workload has shape {tokens.shape} and current_expert_table {table.shape}; each slot needs a load."
        )
    # The rules of a full and complete table are those of a placement in a file.
    LayeredPlacement(table.reshape(len(table), -1), tuple(range(len(table))), source="current_expert_table")
    return table.astype(np.int32), tokens.astype(np.float64).reshape(-1, *table.shape).sum(axis=0)


def register() -> None:
    """Put ``EquipoisePolicy`` in the place of policy 1, if the environment asks for it and the engine is there.

    It may be called any number of times, and does nothing without ``EQUIPOISE_VLLM_ASCEND=1``.
    """
    if os.environ.get(PREFIX, "").strip() != "1":
        return
    try:
        factory = importlib.import_module(FACTORY)
        builtin = getattr(factory, REPLACED)
        if getattr(builtin, "by_equipoise", False):
            return
        found = tuple(inspect.signature(builtin.rebalance_experts).parameters)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        _refuse(f"its policies are not as expected ({type(error).__name__}: {error})")
        return
    if found != PARAMETERS:
        _refuse(f"its policy takes ({', '.join(found)}), and equipoise knows ({', '.join(PARAMETERS)})")
        return
    settings = Settings.from_environment(PREFIX)
    if settings.shares:
        why = open_door(SHARED)
        if why is not None:
            log.warning("equipoise leaves replicas of this vLLM-Ascend even shares: %s.", why)
    setattr(factory, REPLACED, EquipoisePolicy)
    log.info("equipoise replaced %s as vLLM-Ascend's EPLB policy 1. Unset %s to switch it off.", REPLACED, PREFIX)


def _refuse(reason: str) -> None:
    log.warning("equipoise does not know this vLLM-Ascend: %s. It keeps its own policies; update equipoise.", reason)


def is_map(document: Any) -> bool:
    """Whether a decoded JSON document is an expert map."""
    return isinstance(document, dict) and "layer_list" in document


def read_map(document: dict[Any, Any], path: Path) -> LayeredPlacement:
    """Return the placement in an expert map.

    Raises
    ------
    FileFormatError
        If a key is missing, a count contradicts its list, or devices differ in size.

    Notes
    -----
    Layers and devices are taken in the order of their lists, as the engine takes them: it looks at no id. Layers keep
    their ids where those ascend.
    """
    layers = document["layer_list"]
    _same(document.get("moe_layer_count"), layers, f"{path}: moe_layer_count")
    table, sizes = [], set()
    for i, layer in enumerate(layers):
        where = f"{path}: layer {i}"
        devices = layer.get("device_list") if isinstance(layer, dict) else None
        if not isinstance(devices, list):
            raise FileFormatError(f"{where} must be an object with a list device_list.")
        _same(layer.get("device_count", len(devices)), devices, f"{where}: device_count")
        row: list[Any] = []
        for j, device in enumerate(devices):
            experts = device.get("device_expert") if isinstance(device, dict) else None
            if not isinstance(experts, list):
                raise FileFormatError(f"{where}, device {j} must have a list device_expert of experts.")
            row += experts
            sizes.add((len(devices), len(experts)))
        table.append(row)
    if len(sizes) != 1:
        raise FileFormatError(f"{path}: every layer needs as many devices, and every device as many experts.")
    slots = whole_numbers(table, f"{path}: a list device_expert of experts")
    return LayeredPlacement(slots, _names(layers, path), sizes.pop()[0], str(path))


def _names(layers: list[Any], path: Path) -> tuple[int, ...]:
    """Return the ids of layers where they ascend, else their positions, which is all that the engine goes by."""
    ids = [layer.get("layer_id") for layer in layers]
    for i in ids:
        if i is not None and type(i) is not int:
            raise FileFormatError(f"{path}: layer_id is {shown(i)}; it must be a whole number, or left out.")
    whole = all(type(i) is int for i in ids)
    ascends = whole and ids[0] >= 0 and all(a < b for a, b in itertools.pairwise(ids))
    return tuple(ids) if ascends else tuple(range(len(layers)))


def _same(count: Any, items: Any, where: str) -> None:
    if not isinstance(items, list) or not items or type(count) is not int or count != len(items):
        number = len(items) if isinstance(items, list) else 0
        raise FileFormatError(
            f"{where} is {shown(count)}, and the list holds {number}; they must agree, and be at least 1."
        )


def write_map(placement: LayeredPlacement) -> bytes:
    """Return the placement as JSON text; layers count from 0 over the MoE layers, as the engine counts them.

    Raises
    ------
    InvalidInputError
        If a rank holds an expert twice, or the number of ranks is not known.
    """
    table = refuse_duplicates(placement, "vLLM-Ascend's expert map")
    layers = [
        {
            "layer_id": i,
            "device_count": len(row),
            "device_list": [{"device_id": j, "device_expert": experts} for j, experts in enumerate(row)],
        }
        for i, row in enumerate(table.tolist())
    ]
    return (json.dumps({"moe_layer_count": len(layers), "layer_list": layers}) + "\n").encode()
