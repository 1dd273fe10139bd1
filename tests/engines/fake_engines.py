"""Stand-ins for engines that are not installed: just enough of each for a plug-in to find its place."""

from __future__ import annotations

import sys
import types
from collections import defaultdict
from enum import Enum, auto
from typing import ClassVar

import pytest


def add_module(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> types.ModuleType:
    """Put a module under ``name``, its parents included, until the test ends."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        path = ".".join(parts[:i])
        if path not in sys.modules:
            monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    vars(sys.modules[name]).update(members)
    return sys.modules[name]


class BuiltinPolicy:
    """The signature of vLLM's policy."""

    @classmethod
    def helper(cls):
        return "kept"

    @classmethod
    def rebalance_experts(cls, weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices=None):
        raise AssertionError("the built-in policy was called")


def add_vllm(monkeypatch: pytest.MonkeyPatch, policy: type = BuiltinPolicy) -> dict[str, type]:
    """Install a stand-in for vLLM and return its table of policies."""
    policies = {"default": policy}
    add_module(monkeypatch, "vllm", __version__="0.0.fake")
    add_module(monkeypatch, "vllm.distributed.eplb.policy", EPLB_POLICIES=policies)
    return policies


class Algorithm(Enum):
    """The names of SGLang's algorithms."""

    deepseek = auto()
    deepseek_hierarchical = auto()
    deepseek_vec = auto()
    deepseek_vec_hierarchical = auto()
    elasticity_aware = auto()


class HookType(Enum):
    """SGLang's kinds of hooks."""

    AFTER = "after"
    REPLACE = "replace"


def builtin_rebalance(
    tokens_per_expert, num_physical_experts, num_local_physical_experts, num_groups, num_nodes, algorithm
):
    """Answer as SGLang's planner would be called."""
    return "built-in"


def add_sglang(monkeypatch: pytest.MonkeyPatch, planner=builtin_rebalance):
    """Install a stand-in for SGLang and return its registry of hooks."""

    class HookRegistry:
        _hooks: ClassVar = defaultdict(list)

        @classmethod
        def register(cls, target, hook, hook_type=HookType.AFTER, *, source=None):
            cls._hooks[target].append((hook_type, hook, source))

    add_module(monkeypatch, "sglang", __version__="0.0.fake")
    add_module(monkeypatch, "sglang.srt.plugins.hook_registry", HookRegistry=HookRegistry, HookType=HookType)
    add_module(monkeypatch, "sglang.srt.eplb.eplb_algorithms", rebalance_experts=planner, EplbAlgorithm=Algorithm)
    return HookRegistry
