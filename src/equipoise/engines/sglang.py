"""SGLang: take the place of its ``rebalance_experts``, through the engine's own plug-in loader and hooks.

SGLang calls ``register`` in every process, through the entry point group ``sglang.srt.plugins``. Users leave
``--eplb-algorithm auto``. What the environment may say is in ``docs/engines/sglang.md``.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import logging
from typing import TYPE_CHECKING, Any

from equipoise.engines import sglang_shares
from equipoise.engines.settings import Settings
from equipoise.errors import MissingDependencyError

if TYPE_CHECKING:
    from equipoise.engines.planner import Planner

__all__ = ["PARAMETERS", "PREFIX", "TARGET", "register"]

PREFIX = "EQUIPOISE_SGLANG"
MODULE = "sglang.srt.eplb.eplb_algorithms"
TARGET = f"{MODULE}.rebalance_experts"
# What SGLang passes by name; another signature is another contract.
PARAMETERS = (
    "tokens_per_expert",
    "num_physical_experts",
    "num_local_physical_experts",
    "num_groups",
    "num_nodes",
    "algorithm",
)
# Whether each algorithm that equipoise stands in for keeps expert groups on a node. Others (planning round dead
# ranks) are not its business and stay with the engine.
HIERARCHICAL = {
    "deepseek": False,
    "deepseek_hierarchical": True,
    "deepseek_vec": False,
    "deepseek_vec_hierarchical": True,
}
log = logging.getLogger("sglang.equipoise")


def register() -> None:
    """Register a REPLACE hook on SGLang's planner, unless switched off.

    It may be called any number of times. An SGLang whose planner has another signature is left as it is, with
    one warning in the log.

    Raises
    ------
    MissingDependencyError
        If SGLang is not installed.
    InvalidInputError
        If a variable of the environment breaks its rule, or a plan named there cannot be read. SGLang logs that
        and keeps its own planner.
    """
    settings = Settings.from_environment(PREFIX)
    if not settings.enabled:
        log.info("equipoise is switched off by %s=0; SGLang plans by itself.", PREFIX)
        return
    hooks, algorithms = _engine()
    if hooks is None:
        return
    builtin = algorithms.rebalance_experts
    if _is_ours(hooks, builtin):
        return
    found = tuple(inspect.signature(builtin).parameters)
    if found != PARAMETERS:
        _refuse(f"its planner takes ({', '.join(found)}), and equipoise knows ({', '.join(PARAMETERS)})")
        return
    if settings.shares:
        why = sglang_shares.refusal()
        if why is not None:
            log.warning("equipoise leaves replicas of this SGLang even shares: %s.", why)
            settings = dataclasses.replace(settings, shares=False)
    hooks.HookRegistry.register(TARGET, _make_hook(builtin, settings), hooks.HookType.REPLACE)
    for target, hook in (sglang_shares.doors() if settings.shares else {}).items():
        hooks.HookRegistry.register(target, hook, hooks.HookType.REPLACE)
    log.info(
        "equipoise replaced %s; it %s. %s=0 switches it off.",
        TARGET,
        f"holds {' and '.join(settings.plans)}" if settings.plans else "plans from the live load",
        PREFIX,
    )


def _engine() -> tuple[Any, Any]:
    """Return SGLang's hook registry and planner, or None twice after a refusal."""
    try:
        importlib.import_module("sglang")
    except ImportError as error:
        raise MissingDependencyError(
            "the SGLang plug-in needs sglang, which is not installed here; SGLang itself calls it when it starts."
        ) from error
    try:
        hooks = importlib.import_module("sglang.srt.plugins.hook_registry")
        algorithms = importlib.import_module(MODULE)
        if callable(hooks.HookRegistry.register) and hooks.HookType.REPLACE and callable(algorithms.rebalance_experts):
            return hooks, algorithms
    except (ImportError, AttributeError) as error:
        _refuse(f"its hooks or its planner are not as expected ({type(error).__name__}: {error})")
        return None, None
    _refuse("its hooks or its planner are not as expected")
    return None, None


def _is_ours(hooks: Any, builtin: Any) -> bool:
    """Whether a hook of ours is registered already, applied or still waiting."""
    waiting = getattr(hooks.HookRegistry, "_hooks", {}).get(TARGET, ())
    return hasattr(builtin, "by_equipoise") or any(hasattr(hook, "by_equipoise") for _, hook, *_ in waiting)


def _refuse(reason: str) -> None:
    version = getattr(importlib.import_module("sglang"), "__version__", "unknown")
    log.warning(
        "equipoise does not know this SGLang (%s): %s. SGLang keeps its own planner; update equipoise.", version, reason
    )


def _make_hook(builtin: Any, settings: Settings) -> Any:
    from equipoise.engines.planner import Planner

    planner = Planner(settings, PREFIX, log)
    seen: set[str] = set()  # algorithms that are in the log

    def rebalance_experts(
        tokens_per_expert: Any,
        num_physical_experts: int,
        num_local_physical_experts: int,
        num_groups: int | None,
        num_nodes: int,
        algorithm: Any,
    ) -> tuple[Any, Any, Any]:
        """Return physical_to_logical, logical_to_all_physical and expert_count: int64 on the CPU."""
        name = getattr(algorithm, "name", str(algorithm))
        if name not in HIERARCHICAL:
            if name not in seen:
                seen.add(name)
                log.info("equipoise leaves the algorithm %s to SGLang, which was asked for by name.", name)
            return builtin(  # type: ignore[no-any-return]
                tokens_per_expert=tokens_per_expert,
                num_physical_experts=num_physical_experts,
                num_local_physical_experts=num_local_physical_experts,
                num_groups=num_groups,
                num_nodes=num_nodes,
                algorithm=algorithm,
            )
        hierarchical = HIERARCHICAL[name] if settings.hierarchy == "auto" else settings.hierarchy == "hierarchical"
        groups, nodes = (num_groups, num_nodes) if hierarchical else (1, 1)
        return _rebalance(tokens_per_expert, num_physical_experts, num_local_physical_experts, groups, nodes, planner)

    rebalance_experts.by_equipoise = True  # type: ignore[attr-defined]
    return rebalance_experts


def _rebalance(
    tokens: Any, num_slots: int, slots_per_rank: int, num_groups: int | None, num_nodes: int, planner: Planner
) -> tuple[Any, Any, Any]:
    import numpy as np
    import torch

    from equipoise.dispatch.tickets import list_slots
    from equipoise.engines.windows import group_steps
    from equipoise.errors import IndivisibleError
    from equipoise.forecasting.smoothing import MOST_WINDOWS

    if num_slots % slots_per_rank:
        raise IndivisibleError(
            f"{num_slots} slots do not divide into ranks of {slots_per_rank}. Use a number of slots that "
            f"{slots_per_rank} divides."
        )
    # Steps are summed on the tensor's own device: what comes back is a few windows, not all of them.
    most = planner.settings.windows
    load = group_steps(tokens, MOST_WINDOWS if most is None else most) if tokens.ndim == 3 else tokens
    current = _in_force(load.shape[-2], num_slots)
    asked = (load, num_slots, num_groups, num_nodes, num_slots // slots_per_rank, current)
    placement, shares = planner.place_and_share(*asked)
    lists: Any = placement.logical_to_physical
    if shares is not None and sglang_shares.lists_are_spread():
        width = 1 << min(num_slots.bit_length() - 1, 6)  # a list is no wider than there are slots
        lists = list_slots(shares, width)[0]
    maps = placement.physical_to_logical, lists, placement.replica_count
    slots, places, counts = (torch.from_numpy(array.astype(np.int64)) for array in maps)
    return slots, places, counts


def _in_force(num_layers: int, num_slots: int) -> Any:
    """Return the placement that SGLang holds now, or None: it is not passed, but every rank holds the same one.

    SGLang copies no weights into a slot that already holds its expert, so keeping slots saves transfers. Anything
    unexpected means None, and the plan is made afresh.
    """
    import sys

    location = sys.modules.get("sglang.srt.eplb.expert_location")
    get = getattr(location, "get_global_expert_location_metadata", None)
    if get is None:
        return None
    held = getattr(get(), "physical_to_logical_map_cpu", None)
    if held is None or tuple(held.shape) != (num_layers, num_slots):
        return None
    return held.numpy()
