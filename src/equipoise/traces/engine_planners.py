"""The engines' own planners, called as the engines call them, where their packages can be imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import MissingDependencyError, reason
from equipoise.problem import Cluster

__all__ = ["ENGINE_PLANNERS", "EnginePlanner", "can_import"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class EnginePlanner:
    """A row: the module that holds the planner, how to have it, and how the engine calls it.

    ``call(module, torch, windows, cluster, groups, held)`` returns the expert of each slot, [layers, slots].
    """

    name: str
    module: str
    install: str
    call: Callable[..., Any]
    sees_windows: bool = False

    def load(self) -> Callable[[Floats, Cluster, int | None, Ints], Ints]:
        """Return the planner as a function of windows, cluster, groups and the slots in force.

        Raises
        ------
        MissingDependencyError
            If the module fails while it is imported.
        """
        module = _imported(self)

        def plans(windows: Floats, cluster: Cluster, groups: int | None, held: Ints) -> Ints:
            """Return the slots that the engine's planner fills."""
            found = self.call(module, sys.modules["torch"], windows, cluster, groups, held)
            return np.ascontiguousarray(found.cpu().numpy(), np.int32)

        return plans


def can_import(row: EnginePlanner) -> bool:
    """Whether the planner's module can be imported here."""
    try:
        _imported(row)
    except MissingDependencyError:
        return False
    return True


def _imported(row: EnginePlanner) -> Any:
    try:
        return importlib.import_module(row.module)
    except Exception as error:  # an engine's package may raise anything while it is imported
        raise MissingDependencyError(
            f"{row.module} cannot be imported: {[*reason(error).splitlines(), type(error).__name__][0]}. {row.install}"
        ) from error


def _whole(torch: Any, load: Floats) -> Any:
    """Return counts as engines sum them, in whole numbers where they are whole; planners make float32 of them."""
    whole = load.astype(np.int64)
    return torch.from_numpy(whole if np.array_equal(whole, load) else load)


def _call_vllm(module: Any, torch: Any, windows: Floats, cluster: Cluster, groups: int | None, held: Ints) -> Any:
    # Six positional arguments; nodes that do not divide the groups make it plan globally.
    weight, in_force = _whole(torch, windows.sum(axis=0)), torch.from_numpy(held.astype(np.int64))
    policy = module.DefaultEplbPolicy
    return policy.rebalance_experts(
        weight, cluster.num_slots, groups or 1, cluster.num_nodes, cluster.num_ranks, in_force
    )


def _call_sglang(algorithm: str) -> Callable[..., Any]:
    def call(module: Any, torch: Any, windows: Floats, cluster: Cluster, groups: int | None, held: Ints) -> Any:
        """Call the planner as SGLang does."""
        whole = groups is not None and groups % cluster.num_nodes == 0
        chosen = module.EplbAlgorithm[f"{algorithm}_hierarchical" if whole else algorithm]
        # The function below the registered one, which a plug-in of ours may have replaced.
        function = getattr(module.rebalance_experts, "__wrapped__", module.rebalance_experts)
        return function(
            tokens_per_expert=_whole(torch, windows),
            num_physical_experts=cluster.num_slots,
            num_local_physical_experts=cluster.slots_per_rank,
            num_groups=groups,
            num_nodes=cluster.num_nodes,
            algorithm=chosen,
        )[0]

    return call


def _call_deepseek(module: Any, torch: Any, windows: Floats, cluster: Cluster, groups: int | None, held: Ints) -> Any:
    weight = _whole(torch, windows.sum(axis=0))
    return module.rebalance_experts(weight, cluster.num_slots, groups or 1, cluster.num_nodes, cluster.num_ranks)[0]


_SGLANG = "sglang.srt.eplb.eplb_algorithms"
ENGINE_PLANNERS: dict[str, EnginePlanner] = {
    row.name: row
    for row in (
        EnginePlanner("vllm", "vllm.distributed.eplb.policy.default", "Run this in vLLM's environment.", _call_vllm),
        EnginePlanner("sglang-deepseek", _SGLANG, "Run this in SGLang's environment.", _call_sglang("deepseek")),
        EnginePlanner(
            "sglang-deepseek-vec", _SGLANG, "Run this in SGLang's environment.", _call_sglang("deepseek_vec"), True
        ),
        EnginePlanner("deepseek-eplb", "eplb", "Put DeepSeek's eplb.py where Python finds it.", _call_deepseek),
    )
}
