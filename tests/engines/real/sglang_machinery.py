"""SGLang's own EPLB machinery in four processes without a GPU: recorder, manager, metadata and updater.

    SGLANG_PLUGINS=equipoise python sglang_machinery.py [SCENARIO ...]

Prints JSON, in the environment that ../environments.py builds. With EQUIPOISE_SGLANG=0 the built-in planner plans.
What is SGLang's own: ``ExpertDistributionRecorder`` (mode ``stat``), ``EPLBManager``, ``ExpertLocationMetadata``,
``ExpertLocationUpdater`` with its canary, and the plug-in loader. What stands in: the model, which has expert weights
and nothing else; the server's configuration; and three modules of which nothing is used here, and which would import
packages for images.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import numpy as np
import torch
import torch.distributed

from engines.real.processes import run_ranks, run_scenarios

RANKS, EXPERTS, LOCAL, GROUPS, LAYERS, DENSE = 4, 16, 10, 4, 6, 1
SLOTS = RANKS * LOCAL
PASSES = 3


def module(name: str, **members: Any) -> None:
    """Put a module that cannot be imported here under its name."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)


module("sglang.srt.model_executor.forward_batch_info", ForwardBatch=object, ForwardMode=object)
module(
    "sglang.srt.observability.metrics_collector",
    STAT_LOGGER_ROLE_EXPERT_DISPATCH=None, ExpertDispatchCollector=None, resolve_collector_class=None,
)  # fmt: skip
module("sglang.srt.model_executor.model_runner_components.moe_ep_setup", init_lplb_solvers=None)

from sglang.srt import plugins  # noqa: E402
from sglang.srt.eplb import (  # noqa: E402
    eplb_algorithms,
    eplb_manager,
    expert_distribution,
    expert_location,
    expert_location_updater,
)
from sglang.srt.runtime_context import get_resources  # noqa: E402

from equipoise.engines.warming import warm_up  # noqa: E402


def configure(rank: int, nodes: int, chunk: int | None) -> None:
    """Be the server's configuration, where these modules ask for it."""
    moe = types.SimpleNamespace(
        ep_num_redundant_experts=SLOTS - EXPERTS, eplb_algorithm="auto", ep_join_mode=None, moe_a2a_backend="none",
        ep_dispatch_algorithm="static", init_expert_location="trivial", eplb_rebalance_layers_per_chunk=chunk,
        eplb_rebalance_num_iterations=PASSES, expert_distribution_recorder_mode="stat",
        expert_distribution_recorder_buffer_size=PASSES, expert_balancedness_report_mode="off",
        eplb_min_rebalancing_utilization_threshold=1.0, elastic_ep_backend=None,
    )  # fmt: skip
    parallel = types.SimpleNamespace(
        ep_size=RANKS, nnodes=nodes, tp_rank=rank, tp_size=RANKS, elastic_ep_initial_size=None, max_ep_size=None,
        ep_join_rank_offset=0,
    )  # fmt: skip
    bags = {
        "get_exec": types.SimpleNamespace(moe=moe, overlap=types.SimpleNamespace(enable_two_batch_overlap=False)),
        "get_parallel": parallel,
        "get_device": types.SimpleNamespace(device="cpu"),
    }
    for place in (eplb_manager, expert_distribution, expert_location, expert_location_updater):
        for name, bag in bags.items():
            if hasattr(place, name):
                setattr(place, name, lambda bag=bag: bag)
    expert_distribution.get_device = lambda: "cpu"  # here a function of another module
    expert_distribution.get_device_namespace = lambda: bags["get_device"]
    expert_distribution.reports_expert_balancedness = lambda: False
    expert_distribution.megamoe_prefill_only_recorder_enabled = lambda: False  # asks for AMD's kernels
    torch.cpu.empty_cache = lambda: None
    config = expert_location.ModelConfigForExpertLocation(
        num_layers=LAYERS, num_logical_experts=EXPERTS, num_groups=GROUPS
    )
    expert_location.ModelConfigForExpertLocation.from_model_config = staticmethod(lambda model: config)


class Model:
    """The expert weights of one rank by layer; the first layers are dense."""

    def __init__(self, table: torch.Tensor, rank: int) -> None:
        self.rank = rank
        self.routed_experts_weights_of_layer = {layer: self.mark(layer, table) for layer in range(DENSE, LAYERS)}

    def mark(self, layer: int, table: torch.Tensor) -> list[torch.Tensor]:
        """Return the weights that ``table`` [layers, slots] gives this rank."""
        experts = table[layer, self.rank * LOCAL : (self.rank + 1) * LOCAL]
        up = (1000 * layer + experts)[:, None].expand(-1, 6).float().clone()
        return [up, (7 * experts + layer)[:, None, None].expand(-1, 2, 2).clone()]

    def wrong(self, table: torch.Tensor) -> int:
        """Return how many weights of this rank are not as ``table`` says."""
        held = self.routed_experts_weights_of_layer
        pairs = ((w, r) for layer in held for w, r in zip(held[layer], self.mark(layer, table), strict=True))
        return sum(int((w != r).flatten(1).any(1).sum()) for w, r in pairs)


def loads(seed: int) -> np.ndarray:
    """Return the tokens of one pass by layer and expert."""
    load = np.random.default_rng(seed).lognormal(4, 1.0, (LAYERS, EXPERTS)).astype(np.int64)
    load[:DENSE] = 0
    return load


def rebalance(nodes: int = 1, chunk: int | None = None) -> list[Any]:
    """Serve, rebalance, serve under another load, rebalance."""

    def body(rank: int) -> Any:
        configure(rank, nodes, chunk)
        builtin = [eplb_algorithms.rebalance_experts]  # in a list: a hook also replaces names in other modules
        plugins.load_plugins()
        received = count_received()
        held = expert_location.ExpertLocationMetadata.init_trivial(None, rank)
        get_resources().expert_location_metadata = held
        assert expert_location.get_global_expert_location_metadata() is held
        recorder = expert_distribution.ExpertDistributionRecorder.init_new(held, rank)
        expert_distribution.set_global_expert_distribution_recorder(recorder)
        model = Model(held.physical_to_logical_map_cpu, rank)
        updater = expert_location_updater.ExpertLocationUpdater()
        nothing = types.SimpleNamespace(update_weights_from_disk=None)
        manager = eplb_manager.EPLBManager(
            model_config=None, get_model=lambda: model, get_expert_location_updater=lambda: updater,
            get_expert_backup_client=lambda: None, get_weight_updater=lambda: nothing,
        )  # fmt: skip
        counted: list[Any] = []
        plan = expert_location.ExpertLocationMetadata.init_by_eplb
        expert_location.ExpertLocationMetadata.init_by_eplb = staticmethod(
            lambda config, count, **more: counted.append(count.sum(0)) or plan(config, count, **more)
        )
        walks = []
        for seed in range(2):
            received[0], load = 0, loads(seed)
            before = held.physical_to_logical_map_cpu.tolist()
            # A pass is over when the manager has been told; in chunks it moves some layers a pass.
            for number in range(PASSES + (LAYERS if chunk else 1)):
                with recorder.with_forward_pass(number, None):
                    for layer in range(DENSE, LAYERS):
                        with recorder.with_current_layer(layer):
                            route(recorder, held, layer, load[layer], rank)
                manager.on_forward_pass_end()
                if held.physical_to_logical_map_cpu.tolist() != before and not chunk:
                    break
            table = held.physical_to_logical_map_cpu
            walks.append({
                "before": before, "table": table.tolist(), "wrong": model.wrong(table), "received": received[0],
                "as routed": torch.equal(counted[-1].cpu(), PASSES * torch.from_numpy(load)),
                "maps agree": torch.equal(held.physical_to_logical_map.cpu(), table) and agree(held),
            })  # fmt: skip
            manager.reset_generator()
            recorder.start_record()
        return {"replaced": eplb_algorithms.rebalance_experts is not builtin[0], "walks": walks}

    return run_ranks(RANKS, body)


def route(recorder: Any, held: Any, layer: int, load: np.ndarray, rank: int) -> None:
    """Tell the recorder of the tokens that this rank sends: its part of each expert's, to the replicas in turn."""
    chosen = []
    for expert, tokens in enumerate(load.tolist()):
        places = held.logical_to_all_physical(layer, expert)
        chosen += [places[token % len(places)] for token in range(rank, tokens, RANKS)]
    recorder.on_select_experts(torch.tensor(chosen, dtype=torch.int64)[:, None])


def agree(held: Any) -> bool:
    """Whether the map from experts to slots is the other one turned round."""
    return all(
        {slot for slot, e in enumerate(row) if e == expert} == set(held.logical_to_all_physical(layer, expert))
        for layer, row in enumerate(held.physical_to_logical_map_cpu.tolist())
        for expert in range(EXPERTS)
    )


def count_received() -> list[int]:
    """Count the slots that a rank receives from others: SGLang receives each in as many pieces as it has tensors."""
    received = [0]
    send = torch.distributed.batch_isend_irecv

    def counting(ops: list[Any]) -> Any:
        pieces = 2 + (os.environ.get("SGLANG_EXPERT_LOCATION_UPDATER_CANARY") == "1")
        received[0] += sum(op.op is torch.distributed.irecv for op in ops) // pieces
        return send(ops)

    torch.distributed.batch_isend_irecv = counting
    return received


SCENARIOS = {
    "at once": rebalance,
    "two nodes": lambda: rebalance(nodes=2),
    "in chunks": lambda: rebalance(chunk=2),
}

if __name__ == "__main__":
    warm_up()
    run_scenarios(SCENARIOS, sys.argv[1:])
