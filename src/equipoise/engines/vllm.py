"""vLLM: take the place of the default EPLB policy, through the engine's own plug-in loader.

vLLM calls ``register`` in every process, through the entry point group ``vllm.general_plugins``. Its table of
policies has one row, "default", and its asynchronous mode insists on that name, so that row is what changes.
What the environment may say is in ``docs/engines/vllm.md``.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import logging
import sys
import threading
from typing import Any

from equipoise.engines.leader import leads
from equipoise.engines.settings import Settings
from equipoise.engines.vllm_shares import MODULE, SharedMaps, close_door, open_door
from equipoise.errors import MissingDependencyError

__all__ = ["PARAMETERS", "PREFIX", "register"]

PREFIX = "EQUIPOISE_VLLM"
# What vLLM passes to a policy, in this order; another signature is another contract.
PARAMETERS = ("weight", "num_replicas", "num_groups", "num_nodes", "num_ranks", "old_global_expert_indices")
# Under the engine's own name, because it gives handlers to that name and to no other.
log = logging.getLogger("vllm.equipoise")


def register() -> None:
    """Make equipoise the policy that vLLM calls "default", or put the built-in one back if switched off.

    It may be called any number of times. A vLLM whose policy has another signature is left as it is, with one
    warning in the log.

    Raises
    ------
    MissingDependencyError
        If vLLM is not installed.
    InvalidInputError
        If a variable of the environment breaks its rule, or a plan named there cannot be read. vLLM then stops,
        rather than serve with settings other than those asked for.
    """
    settings = Settings.from_environment(PREFIX)
    policies = _policies()
    if policies is None:
        return
    builtin = policies["default"]
    replaced = getattr(builtin, "replaced_by_equipoise", None)
    if not settings.enabled:
        if replaced is not None:
            policies["default"] = replaced
            if MODULE in sys.modules:
                close_door()
        log.info("equipoise is switched off by %s=0; vLLM plans with %s.", PREFIX, (replaced or builtin).__name__)
        return
    if replaced is not None:
        return
    found = tuple(inspect.signature(builtin.rebalance_experts).parameters)
    if found != PARAMETERS:
        _refuse(f"its policy takes ({', '.join(found)}), and equipoise knows ({', '.join(PARAMETERS)})")
        return
    maps = None
    if settings.shares:
        maps = SharedMaps()
        why = open_door(maps)
        if why is not None:
            log.warning("equipoise leaves replicas of this vLLM even shares: %s.", why)
            settings, maps = dataclasses.replace(settings, shares=False), None
    policies["default"] = _make_policy(builtin, settings, maps)
    log.info(
        "equipoise replaced %s as vLLM's default EPLB policy; it %s. %s=0 switches it off.",
        builtin.__name__,
        f"holds {' and '.join(settings.plans)}" if settings.plans else "plans from the live load",
        PREFIX,
    )


def _policies() -> dict[str, Any] | None:
    """Return vLLM's table of policies, or None after a refusal."""
    try:
        importlib.import_module("vllm")
    except ImportError as error:
        raise MissingDependencyError(
            "the vLLM plug-in needs vllm, which is not installed here; vLLM itself calls it when it starts."
        ) from error
    try:
        policies = importlib.import_module("vllm.distributed.eplb.policy").EPLB_POLICIES
        if isinstance(policies, dict) and callable(policies["default"].rebalance_experts):
            return policies
        _refuse("its table EPLB_POLICIES has no policy called default")
    except (ImportError, AttributeError, KeyError) as error:
        _refuse(f"vllm.distributed.eplb.policy is not as expected ({type(error).__name__}: {error})")
    return None


def _refuse(reason: str) -> None:
    version = getattr(importlib.import_module("vllm"), "__version__", "unknown")
    log.warning(
        "equipoise does not know this vLLM (%s): %s. vLLM keeps its own EPLB policy; update equipoise.", version, reason
    )


def _make_policy(builtin: type, settings: Settings, maps: SharedMaps | None) -> type:
    """Return a policy class in the place of ``builtin``, whose other methods it inherits."""
    from equipoise.engines.planner import Planner
    from equipoise.engines.windows import History

    planner, history = Planner(settings, PREFIX, log, _leads), History(settings.windows or 1, _agree, log)

    def rebalance_experts(
        cls: type,
        weight: Any,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Any = None,
    ) -> Any:
        """Return the next physical_to_logical map: int64 on the CPU, shape (num_layers, num_replicas)."""
        import numpy as np
        import torch

        held = old_global_expert_indices
        held = None if held is None else held.detach().cpu().numpy()
        windows = history.windows(weight, num_replicas, num_ranks)
        asked = (windows, num_replicas, num_groups, num_nodes, num_ranks, held)
        placement, shares = planner.place_and_share(*asked, seen=weight)
        if maps is not None:
            maps.remember(shares, placement.physical_to_logical, placement.num_logical_experts)
        return torch.from_numpy(placement.physical_to_logical.astype(np.int64))

    members = {
        "__doc__": "vLLM's EPLB policy, planned by equipoise.",
        "__module__": __name__,
        "replaced_by_equipoise": builtin,
        "rebalance_experts": classmethod(rebalance_experts),
    }
    return type("EquipoisePolicy", (builtin,), members)


def _leads() -> bool:
    """Whether this process is the first of its EP group, which sees the layers that the group holds."""
    state = sys.modules.get("vllm.distributed.parallel_state")
    try:
        return leads(state.get_ep_group() if state is not None else None)
    except Exception:  # before the group is there, vLLM asserts
        return leads()


def _agree(digest: bytes) -> bool | None:
    """Return whether all ranks of the EP group have this digest, through its CPU group; None where that cannot be.

    In vLLM's asynchronous mode a plan is made in a thread, where a collective could meet one of the main thread's.
    """
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return True  # there is nobody else
    state = sys.modules.get("vllm.distributed.parallel_state")
    try:
        group = state.get_ep_group() if state is not None else None
        alone, cpu_group = group is not None and group.world_size == 1, getattr(group, "cpu_group", None)
    except Exception:  # before the group is there, vLLM asserts
        return None
    if alone:
        return True
    if cpu_group is None or threading.current_thread() is not threading.main_thread():
        return None
    mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
    every = [torch.empty_like(mine) for _ in range(dist.get_world_size(cpu_group))]
    dist.all_gather(every, mine, group=cpu_group)
    return all(torch.equal(other, mine) for other in every)
