"""SGLang's doors for shares: the list of an expert's slots, the slot of each source rank, and where weights go.

SGLang spreads the tokens of an expert evenly over a list of slots (``dynamic``), or gives each source rank one of the
list (``static``). Lists come from ``rebalance_experts``; slots that are in one more than once get more, and a dormant
one is in none. Two functions beside the planner have to know that. The one that gives source ranks a slot deals them
out by how often each is listed. And the one by which weights find their slots names those that are not listed, too:
weights that were loaded while a replica slept would be missing when it wakes.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np

from equipoise.dispatch.tickets import assign_ranks

__all__ = ["DISPATCH", "WEIGHTS", "doors", "lists_are_spread", "refusal"]

MODULE = "sglang.srt.eplb.expert_location"
DISPATCH = f"{MODULE}.compute_logical_to_rank_dispatch_physical_map"
WEIGHTS = f"{MODULE}.ExpertLocationMetadata.logical_to_all_physical"
PARAMETERS = {
    DISPATCH: ("logical_to_all_physical_map", "ep_size", "num_physical_experts", "ep_rank", "seed"),
    WEIGHTS: ("self", "layer_id", "logical_expert_id", "require_global_experts"),
}
SPREAD = ("static", "dynamic")


def _builtin(target: str) -> Any:
    found: Any = importlib.import_module(MODULE)
    for name in target[len(MODULE) + 1 :].split("."):
        found = getattr(found, name)
    return found


def refusal() -> str | None:
    """Return why this SGLang is not as expected, or None."""
    try:
        for target, known in PARAMETERS.items():
            found = tuple(inspect.signature(_builtin(target)).parameters)
            if found != known:
                return f"{target} takes ({', '.join(found)}), and equipoise knows ({', '.join(known)})"
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return f"{MODULE} is not as expected ({type(error).__name__}: {error})"
    return None


def doors() -> dict[str, Any]:
    """Return what goes in the place of each target; ``refusal`` has looked at them."""
    builtin_dispatch, builtin_weights = _builtin(DISPATCH), _builtin(WEIGHTS)

    def compute_logical_to_rank_dispatch_physical_map(
        logical_to_all_physical_map: Any, ep_size: int, num_physical_experts: int, ep_rank: int, seed: int = 42
    ) -> Any:
        """Return the slot to which a rank sends the tokens of each expert: [layers, experts]."""
        import torch

        lists = logical_to_all_physical_map.cpu().numpy()
        repeated = np.argwhere((np.diff(np.sort(lists, axis=2), axis=2) == 0).sum(axis=2) > _padding(lists))
        plain = torch.from_numpy(_listed_once(lists)).to(logical_to_all_physical_map)
        chosen = builtin_dispatch(plain, ep_size, num_physical_experts, ep_rank, seed)
        for layer, expert in repeated.tolist():
            slots, times = np.unique(lists[layer, expert][lists[layer, expert] >= 0], return_counts=True)
            ranks = assign_ranks(times / times.sum(), slots // (num_physical_experts // ep_size), ep_size)
            chosen[layer, expert] = int(slots[ranks[ep_rank]])
        return chosen

    def logical_to_all_physical(
        self: Any, layer_id: int, logical_expert_id: int, require_global_experts: bool = False
    ) -> Any:
        """Return the slots that hold an expert, each once, whether tokens go there or not."""
        held = self.physical_to_logical_map_cpu
        if require_global_experts or layer_id >= held.shape[0]:
            return builtin_weights(self, layer_id, logical_expert_id, require_global_experts)
        return (held[layer_id] == logical_expert_id).nonzero().flatten().tolist()

    found = {DISPATCH: compute_logical_to_rank_dispatch_physical_map, WEIGHTS: logical_to_all_physical}
    for hook in found.values():
        hook.by_equipoise = True  # type: ignore[attr-defined]
    return found


def _padding(lists: Any) -> Any:
    """Return how many neighbours of a sorted list are equal because both are -1."""
    return np.maximum((lists < 0).sum(axis=2) - 1, 0)


def _listed_once(lists: Any) -> Any:
    """Return the lists with each slot once, ascending, and -1 after the end."""
    ordered = np.sort(lists, axis=2)
    again = np.zeros(lists.shape, dtype=np.bool_)
    again[:, :, 1:] = ordered[:, :, 1:] == ordered[:, :, :-1]
    last = np.iinfo(lists.dtype).max
    once = np.sort(np.where(again | (ordered < 0), last, ordered), axis=2)
    return np.where(once == last, -1, once)


def lists_are_spread() -> bool:
    """Whether this server spreads tokens over lists: a solver for each batch would take them for something else."""
    try:
        moe = importlib.import_module(MODULE).get_exec().moe
        return getattr(moe, "ep_dispatch_algorithm", None) in SPREAD
    except Exception:  # before the server has a configuration, the engine raises what it likes
        return False
