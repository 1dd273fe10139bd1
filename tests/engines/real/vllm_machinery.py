"""vLLM's own EPLB machinery in four processes without a GPU: its state, its policy table, its transfers, its worker.

    VLLM_PLUGINS=equipoise python vllm_machinery.py [SCENARIO ...]

Prints JSON, in the environment that ../environments.py builds. With EQUIPOISE_VLLM=0 the built-in policy plans. What is
vLLM's own: ``EplbState`` and all that it calls, its worker in the background, the groups (``GroupCoordinator``), the
configuration (``EPLBConfig``), the model's interface (``MixtureOfExperts``), the communicator ``torch_gloo``, the
plug-in loader. What stands in: the layers, which hold real tensors but no router; the parts of the parallel
configuration that the state reads; and streams, events and the number of a device, of which a machine without an
accelerator has none.
"""

from __future__ import annotations

import sys
import time
import types
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed
from vllm.config.parallel import EPLBConfig
from vllm.distributed import parallel_state
from vllm.distributed.eplb import eplb_communicator, eplb_state, policy
from vllm.model_executor.models.interfaces import MixtureOfExperts
from vllm.plugins import load_general_plugins

from engines.real.processes import run_ranks, run_scenarios
from equipoise.engines.warming import warm_up

RANKS, EXPERTS, LOCAL, GROUPS = 4, 16, 10, 4
SLOTS = RANKS * LOCAL
WINDOW, INTERVAL = 2, 4


class Event:
    """An event of a machine where everything has happened by the time it is recorded."""

    def __init__(self, **options: Any) -> None:
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def wait(self, stream: Any = None) -> None:
        pass

    synchronize = wait

    def elapsed_time(self, other: Event) -> float:
        return 1000 * (other.at - self.at)


class Stream:
    """A stream of such a machine."""

    def __init__(self, device: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass


def stand_in() -> None:
    """Put stand-ins where vLLM would ask an accelerator."""
    eplb_state.PIN_MEMORY = eplb_communicator.PIN_MEMORY = False
    torch.Event, torch.Stream = Event, Stream  # type: ignore[assignment, misc]
    stream = Stream()
    torch.accelerator.current_stream = lambda *_: stream  # type: ignore[assignment, return-value]
    torch.accelerator.set_stream = lambda *_: None
    torch.accelerator.set_device_index = lambda *_: None
    torch.accelerator.current_accelerator = lambda *_: torch.device("cpu")


def join(ranks: list[int], node_count: int = 1) -> None:
    """Make these ranks vLLM's expert-parallel group, with the sibling group that its transfers use."""
    rank = torch.distributed.get_rank()
    everyone = [ranks, *([r] for r in range(torch.distributed.get_world_size()) if r not in ranks)]
    make = parallel_state.GroupCoordinator
    parallel_state._EP = make(everyone, rank, "gloo", False, group_name="ep")
    parallel_state._EPLB = make(everyone, rank, "gloo", False, group_name="eplb")
    parallel_state._NODE_COUNT = node_count


class Layer:
    """The weights of one MoE layer on one rank, each of which says whose it is."""

    def __init__(self, layer: int, local: int) -> None:
        self.layer = layer
        self.eplb_state = eplb_state.EplbLayerState()
        # Of two types and shapes, as an up-projection and its scales are.
        self.weights = [torch.full((local, 6), -1.0), torch.full((local, 2, 2), -1, dtype=torch.int64)]

    def get_expert_weights(self) -> list[torch.Tensor]:
        return self.weights

    def set_eplb_state(self, moe_layer_idx: int, **state: torch.Tensor) -> None:
        self.eplb_state.set_layer_state(moe_layer_idx, **state)

    def mark(self, experts: torch.Tensor) -> list[torch.Tensor]:
        """Return what the weights of these experts must be."""
        return [
            (1000 * self.layer + experts)[:, None].expand(-1, 6).float(),
            (7 * experts + self.layer)[:, None, None].expand(-1, 2, 2),
        ]


class Model(MixtureOfExperts):
    """A model that has nothing but expert weights."""

    def __init__(self, name: str, layers: int, experts: int = EXPERTS, local: int = LOCAL, ranks: int = RANKS) -> None:
        self.name = name
        self.moe_layers = [Layer(i, local) for i in range(layers)]  # type: ignore[misc]
        self.num_moe_layers, self.num_expert_groups, self.num_shared_experts = layers, GROUPS, 0
        self.num_logical_experts = self.num_routed_experts = experts
        self.expert_weights = [layer.get_expert_weights() for layer in self.moe_layers]
        self.update_physical_experts_metadata(local * ranks, local)
        self.config = types.SimpleNamespace(model=name, compute_hash=lambda: name)

    def update_physical_experts_metadata(self, num_physical_experts: int, num_local_physical_experts: int) -> None:
        self.num_physical_experts = num_physical_experts
        self.num_local_physical_experts = num_local_physical_experts
        self.num_redundant_experts = num_physical_experts - self.num_logical_experts

    def fill(self, table: torch.Tensor, rank: int) -> None:
        """Load the weights that ``table`` [layers, slots] gives this rank."""
        for layer, row in zip(self.moe_layers, table, strict=True):
            for weight, right in zip(layer.weights, layer.mark(self.own(row, rank)), strict=True):
                weight.copy_(right)

    def wrong(self, table: torch.Tensor, rank: int) -> int:
        """Return how many slots of this rank hold other weights than ``table`` says."""
        bad = 0
        for layer, row in zip(self.moe_layers, table, strict=True):
            right = layer.mark(self.own(row, rank))
            same = [(w == r).flatten(1).all(1) for w, r in zip(layer.weights, right, strict=True)]
            bad += int((~torch.stack(same).all(0)).sum())
        return bad

    def own(self, row: torch.Tensor, rank: int) -> torch.Tensor:
        return row[rank * self.num_local_physical_experts : (rank + 1) * self.num_local_physical_experts]


def parallel(ranks: int = RANKS, **options: Any) -> types.SimpleNamespace:
    """Return what the state reads of a parallel configuration."""
    options = {"use_async": False, "window_size": WINDOW, "step_interval": INTERVAL, **options}
    config = EPLBConfig(communicator="torch_gloo", **options)
    return types.SimpleNamespace(
        eplb_config=config, enable_elastic_ep=True, elastic_ep_max_dp_size=RANKS, data_parallel_size=ranks,
        num_ubatches=0,
    )  # fmt: skip


class Rank:
    """One process: the state, its models, and what was seen while it worked."""

    received: ClassVar[Counter[str]] = Counter()

    def __init__(self, rank: int, *models: Model, **options: Any) -> None:
        self.rank, self.models = rank, models
        self.state = eplb_state.EplbState(parallel(**options), torch.device("cpu"))
        for model in models:
            self.state.add_model(model, model.config)
            model.fill(self.table(model), rank)

    def table(self, model: Model) -> torch.Tensor:
        return self.state.model_states[model.name].physical_to_logical_map

    def route(self, model: Model, load: np.ndarray) -> None:
        """Do as the router in a forward pass: count ``load`` [layers, experts] where this rank's slots serve it."""
        table, local = self.table(model), model.num_local_physical_experts
        for layer, row, tokens in zip(model.moe_layers, table.tolist(), load.tolist(), strict=True):
            state = layer.eplb_state
            if not bool(state.should_record_tensor):
                continue
            seen: Counter[int] = Counter()
            for slot, expert in enumerate(row):
                count = int(state.logical_replica_count[expert])
                share = tokens[expert] // count + (seen[expert] < tokens[expert] % count)
                seen[expert] += 1
                if slot // local == self.rank:
                    state.expert_load_view[slot] += share

    def walk(self, *load: np.ndarray) -> list[dict[str, Any]]:
        """Step until vLLM has rearranged, one ``load`` a model; return what was seen of each model."""
        before = [self.table(model).tolist() for model in self.models]
        Rank.received.clear()
        started = False
        while not started or any(state.rebalanced for state in self.state.model_states.values()):
            for model, tokens in zip(self.models, load, strict=True):
                self.route(model, tokens)
            self.state.step()
            started = started or self.state.expert_rearrangement_step == 0
            if started:  # or it would start again before all is moved: the usual interval is thousands of steps
                self.state.expert_rearrangement_step = 0
            assert not self.state.is_async or self.state.async_worker.is_alive(), "vLLM's worker ended"
        return [self.look(model, *seen) for model, *seen in zip(self.models, before, load, strict=True)]

    def look(self, model: Model, before: list[list[int]], load: np.ndarray) -> dict[str, Any]:
        table = self.table(model)
        windows = self.state.model_states[model.name].last_expert_load.sum().item() / load.sum().item()
        return {
            "before": before,
            "table": table.tolist(),
            "wrong": model.wrong(table, self.rank),
            "windows": windows,
            "as routed": bool((self.state.model_states[model.name].last_expert_load == load * int(windows)).all()),
            "received": Rank.received["slots"],
        }


def count_received() -> None:
    """Count what the communicator is told to receive."""
    kind = eplb_communicator.TorchDistGlooStagedEplbCommunicator
    add = kind.add_recv

    def add_recv(self: Any, tensors: list[torch.Tensor], src_rank: int, expert_id: int) -> None:
        Rank.received["slots"] += 1
        add(self, tensors, src_rank, expert_id)

    kind.add_recv = add_recv  # type: ignore[method-assign]


def loads(layers: int, seed: int, experts: int = EXPERTS) -> np.ndarray:
    """Return tokens by layer and expert, uneven, and none in one layer of many."""
    load = np.random.default_rng(seed).lognormal(5, 1.0, (layers, experts)).astype(np.int32)
    if layers > 2:
        load[2] = 0
    return load


def start(rank: int, node_count: int = 1) -> str:
    """Set up a rank as vLLM's worker does before it makes its state; return which policy will plan."""
    stand_in()
    count_received()
    join(list(range(RANKS)), node_count)
    load_general_plugins()
    return policy.EPLB_POLICIES["default"].__name__


def rearrange(node_count: int = 1, **options: Any) -> list[Any]:
    """A model and its draft: a profiling run, then two rearrangements under different loads."""

    def body(rank: int) -> Any:
        planner = start(rank, node_count)
        here = Rank(rank, Model("main", 5), Model("draft", 2), **options)
        here.state.device_index = 0  # vLLM's worker asks for the number of an accelerator, and here may have any
        here.state.start_async_loop()
        initial = [here.table(model).clone() for model in here.models]
        here.state.step(is_profile=True)
        kept = [
            bool(torch.equal(here.table(m), t)) and not m.wrong(t, rank)
            for m, t in zip(here.models, initial, strict=True)
        ]
        walks = [here.walk(loads(5, 2 * i), loads(2, 2 * i + 1)) for i in range(2)]
        return {"policy": planner, "profile kept": kept, "walks": walks}

    return run_ranks(RANKS, body)


def resize(here: Rank, ranks: list[int]) -> None:
    """Do as vLLM's elastic executor on a rank that stays: new groups, views of the new size, a new communicator."""
    (model,) = here.models
    state = here.state.model_states[model.name]
    slots = len(ranks) * model.num_local_physical_experts
    here.state.reconfigure_physical_expert_slots(model.config, slots)
    model.set_eplb_state(state.expert_load_pass_buffer, state.logical_to_physical_map, state.logical_replica_count)
    here.state._propagate_shared_tensors(model, state.num_unpadded_tokens_tensors)
    model.update_physical_experts_metadata(slots, model.num_local_physical_experts)
    group = parallel_state.get_eplb_group()
    here.state.update_communicator(model.config, here.state.create_communicator(model.config, group))


def scale() -> list[Any]:
    """Four ranks become two, serve, and become four again, two of them new."""

    def body(rank: int) -> Any:
        planner = start(rank)
        # vLLM asks that a group which may shrink be of a kind that needs NCCL; what it takes from it, gloo groups have.
        eplb_state.StatelessGroupCoordinator = parallel_state.GroupCoordinator
        parallel_state._EP.tcp_store_group = parallel_state._EP.cpu_group
        here = Rank(rank, Model("main", 5))
        (model,) = here.models
        seen = {"policy": planner, "four": here.walk(loads(5, 0))}

        here.state.rearrange(rank_mapping={0: 0, 1: 1, 2: -1, 3: -1}, use_last_expert_load=True)
        staying = [0, 1]
        seen["shrunk"] = here.table(model).tolist()
        join(staying)
        if rank in staying:
            seen["wrong after shrinking"] = model.wrong(here.table(model), rank)
            resize(here, staying)
            here.state.expert_rearrangement_step = 0
            seen["two"] = here.walk(loads(5, 1))

        join(list(range(RANKS)))
        table = here.state.model_states[model.name].physical_to_logical_map_buffer.clone()
        torch.distributed.broadcast(table, src=0)
        if rank in staying:
            resize(here, list(range(RANKS)))
        else:
            model = Model("main", 5)
            here.models = (model,)
            here.state = eplb_state.EplbState.from_mapping(model, model.config, torch.device("cpu"), parallel(), table)
        seen["expanded"] = here.table(model).tolist()
        here.state.rearrange(use_last_expert_load=True)
        here.state.expert_rearrangement_step = 0
        seen["grown"] = here.table(model).tolist()
        seen["wrong after growing"] = model.wrong(here.table(model), rank)
        seen["four again"] = here.walk(loads(5, 3))
        return seen

    return run_ranks(RANKS, body)


SCENARIOS = {
    "synchronous": rearrange,
    "two nodes": lambda: rearrange(node_count=2),
    "asynchronous": lambda: rearrange(use_async=True),
    "in batches": lambda: rearrange(use_async=True, enable_migration_batching=True),
    "elastic": scale,
}

if __name__ == "__main__":
    warm_up()
    run_scenarios(SCENARIOS, sys.argv[1:])
