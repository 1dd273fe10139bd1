"""Inside the real SGLang: its own plug-in loader and hooks, its own caller of the planner, its own map reader.

Run by ``make test-engines``, in the environment that ``tests/engines/environments.py`` builds. Each test runs a
script in a process of its own; what the script prints last is JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("sglang")
pytestmark = pytest.mark.engines

START = """
import json, logging, sys, time, types
import numpy as np, torch
import sglang.srt.plugins as plugins
from sglang.srt.eplb import eplb_algorithms, expert_location
lines = []
class Keep(logging.Handler):
    def emit(self, record): lines.append((record.levelname, record.getMessage()))
log = logging.getLogger("sglang.equipoise"); log.addHandler(Keep()); log.setLevel(logging.INFO)
# Kept in a list: SGLang also replaces what other modules imported by name.
kept = [eplb_algorithms.rebalance_experts]
def load_again():
    plugins._plugins_loaded = False
    plugins.load_plugins()
def loads(layers=61, experts=256, seed=0, dense=3):
    heat = np.random.default_rng(seed).gamma(0.8, 1.0, (layers, experts))
    heat[:dense] = 0
    return torch.from_numpy((1e5 * heat).astype(np.int32))
def stand_in(layers=61, experts=256, slots=288, ranks=32, groups=8, nodes=1, init="trivial"):
    # What a server would have set up: the parts of its context that the callers of the planner look at.
    moe = types.SimpleNamespace(ep_num_redundant_experts=slots - experts, eplb_algorithm="auto", ep_join_mode=None,
                                ep_dispatch_algorithm=None, moe_a2a_backend="none", init_expert_location=init)
    expert_location.get_exec = lambda: types.SimpleNamespace(moe=moe)
    parallel = types.SimpleNamespace(ep_size=ranks, nnodes=nodes, elastic_ep_initial_size=None)
    expert_location.get_parallel = lambda: parallel
    expert_location.get_device = lambda: types.SimpleNamespace(device="cpu")
    Model = expert_location.ModelConfigForExpertLocation
    config = Model(num_layers=layers, num_logical_experts=experts, num_groups=groups)
    Model.from_model_config = staticmethod(lambda model: config)
def per_rank(weight, table, ranks):
    counts = torch.zeros_like(weight, dtype=torch.float64)
    counts = counts.scatter_add_(1, table, torch.ones_like(table, dtype=torch.float64))
    return torch.gather(weight.double() / counts, 1, table).reshape(len(table), ranks, -1).sum(-1)
def answer(**values): print(json.dumps(values))
"""


def run(script, **environment):
    """Return what ``script`` prints last, as JSON, from a process that has SGLang."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EQUIPOISE_SGLANG")}
    done = subprocess.run(
        [sys.executable, "-c", START + script],
        env={**clean, **environment}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_engines_own_loader_applies_the_hook_once():
    found = run("""
load_again(); first = eplb_algorithms.rebalance_experts
load_again(); second = eplb_algorithms.rebalance_experts
answer(replaced=first.__wrapped__ is kept[0], same=first is second, lines=lines)
""")
    assert found["replaced"]
    assert found["same"]
    ((level, line),) = found["lines"]
    assert level == "INFO"
    assert "replaced sglang.srt.eplb.eplb_algorithms.rebalance_experts" in line


def test_the_off_switch_leaves_the_built_in_planner():
    script = "load_again(); answer(same=eplb_algorithms.rebalance_experts is kept[0], lines=lines)"
    found = run(script, EQUIPOISE_SGLANG="0")
    assert found["same"]
    assert "switched off" in found["lines"][0][1]


def test_the_engines_own_caller_gets_the_same_contract_and_a_better_plan():
    found = run("""
stand_in()
weight = loads(); steps = torch.stack([weight // 2, weight - weight // 2])
report = {}
for name in ("builtin", "ours"):
    if name == "ours": load_again()
    made = expert_location.ExpertLocationMetadata.init_by_eplb(None, steps)
    table = made.physical_to_logical_map
    busiest = per_rank(weight, table, 32).max(1).values
    report[name] = dict(
        type=[str(table.dtype), list(table.shape)], places=list(made.logical_to_all_physical_map.shape),
        valid=bool((made.logical_to_all_physical_map_num_valid.sum(1) == 288).all()), busiest=busiest.sum().item(),
        complete=all(len(set(r)) == 256 for r in table.tolist()),
        duplicates=sum(len(r) - len(set(r)) for l in table.reshape(61, 32, 9).tolist() for r in l))
answer(lines=lines, **report)
""")
    ours, builtin = found["ours"], found["builtin"]
    assert ours["type"] == builtin["type"] == ["torch.int64", [61, 288]]
    assert ours["places"] == builtin["places"] == [61, 256, 288]
    assert ours["valid"]
    assert ours["complete"]
    assert ours["duplicates"] == 0
    assert ours["busiest"] < builtin["busiest"]
    assert "gap to the proved lower bound" in found["lines"][1][1]


def test_the_placement_in_force_is_kept_where_it_can_be():
    found = run("""
from sglang.srt.runtime_context import get_resources
stand_in(); load_again()
held = expert_location.ExpertLocationMetadata.init_by_eplb(None, loads())
expert_location.get_global_expert_location_metadata = lambda: held
same = expert_location.ExpertLocationMetadata.init_by_eplb(None, loads()).physical_to_logical_map
new = expert_location.ExpertLocationMetadata.init_by_eplb(None, loads(seed=1)).physical_to_logical_map
old = held.physical_to_logical_map
stayed = kept_there = 0
for a, b in zip(new.reshape(-1, 9).tolist(), old.reshape(-1, 9).tolist()):
    stayed += len(set(a) & set(b)); kept_there += sum(x == y for x, y in zip(a, b))
answer(same=torch.equal(same, old), stayed=stayed, kept=kept_there)
""")
    assert found["same"]
    assert found["stayed"] == found["kept"] > 0


def test_groups_nodes_and_missing_groups_follow_the_engines_choice_of_algorithm():
    found = run("""
load_again()
whole = {}
for groups, nodes in ((8, 4), (None, 4), (6, 4), (8, 1)):
    stand_in(layers=4, experts=96, slots=128, ranks=16, groups=groups, nodes=nodes)
    table = expert_location.ExpertLocationMetadata.init_by_eplb(None, loads(4, 96, dense=1)).physical_to_logical_map
    size = 96 // (groups or 8)
    homes = [[set((node // size).tolist()) for node in layer.reshape(nodes, -1)] for layer in table]
    whole[f"{groups} {nodes}"] = all(not a & b for layer in homes for i, a in enumerate(layer) for b in layer[:i])
answer(**whole)
""")
    assert found == {"8 4": True, "None 4": False, "6 4": False, "8 1": True}


def test_a_changed_signature_is_refused_with_one_line():
    found = run("""
def changed(tokens_per_expert, num_physical_experts, num_local_physical_experts, num_groups, num_nodes, config):
    return None
eplb_algorithms.rebalance_experts = changed
load_again()
answer(same=eplb_algorithms.rebalance_experts is changed, lines=lines)
""")
    assert found["same"]
    ((level, line),) = found["lines"]
    assert level == "WARNING"
    assert "does not know this SGLang (0.5.23" in line


def test_the_engine_reads_our_static_maps(tmp_path):
    import equipoise as eq
    from equipoise.engines.formats import save_placement
    from equipoise.engines.layered import LayeredPlacement

    plan = eq.solve(eq.PlacementProblem([[5, 4, 3, 2, 1, 1]] * 2, eq.Cluster(num_ranks=4, slots_per_rank=2)))
    for name, file in (("sglang", "map.json"), ("sglang-pt", "map.pt")):
        save_placement(LayeredPlacement.of(plan.placement, (1, 2)), name, tmp_path / file)
        found = run(f"""
stand_in(layers=3, experts=6, slots=8, ranks=4, groups=None, init={str(tmp_path / file)!r})
made = expert_location.compute_initial_expert_location_metadata(None, 0)
answer(table=made.physical_to_logical_map.tolist())
""")
        assert found["table"] == [[0, 1, 2, 3, 4, 5, 0, 1], *plan.placement.physical_to_logical.tolist()]


def test_loading_the_plug_in_adds_less_than_half_a_second_to_a_process_that_has_sglang():
    found = run("""
start = time.perf_counter()
load_again()
answer(seconds=time.perf_counter() - start, numba="numba" in sys.modules)
""")
    assert found["seconds"] < 0.5
    assert not found["numba"]
