"""Inside the real vLLM-Ascend, without its NPU library: policy factory, planner process, placement check, maps.

``torch_npu`` is an empty module here, and what lies on an NPU stays where it is. vLLM-Ascend's wheel lies in front of
vLLM's environment; the parts that run here take nothing from vLLM but its logger and its expert maps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

try:
    version("vllm-ascend")
except PackageNotFoundError:
    pytest.skip("vllm-ascend is not installed", allow_module_level=True)
pytestmark = pytest.mark.engines

OWN_TESTS = Path(os.environ.get("EQUIPOISE_ENGINE_FOLDER", "")) / "own_tests" / "tests" / "ut" / "eplb"
START = """
import json, sys, types
import vllm.distributed, vllm.model_executor.layers.fused_moe.expert_map_manager  # before the empty module is there
sys.modules["torch_npu"] = types.ModuleType("torch_npu")
import numpy as np, torch
import vllm.plugins
torch.Tensor.npu = lambda self: self
from vllm_ascend.eplb.core import eplb_utils, eplb_worker
from vllm_ascend.eplb.core.policy import policy_factory
builtin = policy_factory.DefaultEplb
vllm.plugins.load_general_plugins()
L, R, S, E = 6, 8, 9, 64
def start():
    # The engine's own first placement, as its own expert maps.
    table = eplb_utils.generate_global_placement(E, R, R * S - E, 0).long()
    maps = torch.full((L, R, E), -1)
    for rank in range(R):
        maps[:, rank, table[rank]] = torch.arange(S)
    return maps
def load(seed, table):
    # By slot, as the engine counts: an expert's tokens are spread over its replicas.
    tokens = np.random.default_rng(seed).lognormal(6, 1.2, (L, E))
    replicas = np.stack([np.bincount(layer.reshape(-1), minlength=E) for layer in table])
    share = tokens / replicas
    return torch.from_numpy(np.stack([share[i][table[i]] for i in range(L)]).astype(np.int64))
def answer(**values): print(json.dumps(values))
"""


def run(script, **environment):
    """Return what ``script`` prints last, as JSON, from a process that has vLLM-Ascend and no plug-in but ours."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EQUIPOISE_VLLM")}
    done = subprocess.run(
        [sys.executable, "-c", START + script],
        env={**clean, "VLLM_PLUGINS": "equipoise-ascend", **environment},
        capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_engines_own_factory_makes_our_policy_when_asked_to_and_its_own_when_not():
    script = "answer(name=type(policy_factory.PolicyFactory.generate_policy(1)).__name__)"
    assert run(script)["name"] == "DefaultEplb"
    assert run(script, EQUIPOISE_VLLM_ASCEND="1")["name"] == "EquipoisePolicy"


def test_the_engines_own_planner_process_takes_every_layer_and_composes_transfers_that_can_be_made():
    found = run(
        """
wrong = refused = rounds = 0
results = []
for rank in range(R):
    eplb_worker.get_ep_group = lambda: types.SimpleNamespace(rank_in_group=rank)
    shared = {"expert_maps": start()}
    worker = eplb_worker.EplbWorker(shared, 1)
    checked, planned = worker.check_expert_placement, []
    def check(old, new):
        planned.append(new.clone()); checked(old, new); planned.append(new.clone())
    worker.check_expert_placement = check
    mine = []
    for seed in range(2):
        before = shared["expert_maps"].clone()
        shared["moe_load"] = load(seed, worker.global2local(before, S).numpy())
        update = worker.do_update()
        refused += int((planned[-1] != planned[-2]).any())
        for send, received, own, log2phy, layer in update:
            wrong += sum(int(before[layer, rank, expert]) < 0 for _, expert in send)
            wrong += sum(int(before[layer, source, expert]) < 0 for source, expert in received)
            held = {e for e in range(E) if before[layer, rank, e] >= 0} | {expert for _, expert in received}
            wrong += len({e for e, slot in enumerate(own) if slot >= 0} - held)
        mine.append(shared["expert_maps"].tolist())
        rounds += shared["expert_maps"].tolist() != before.tolist()
    results.append(mine)
answer(wrong=wrong, refused=refused, rounds=rounds, same=all(r == results[0] for r in results),
       policy=type(worker.policy).__name__)
""",
        EQUIPOISE_VLLM_ASCEND="1",
    )
    assert found == {"wrong": 0, "refused": 0, "rounds": 16, "same": True, "policy": "EquipoisePolicy"}


def test_the_engines_own_placement_check_takes_back_a_layer_that_breaks_a_rule():
    found = run("""
old = eplb_worker.EplbWorker.global2local(None, start(), S)
new = old.clone()
new[0, 0, 0] = new[0, 0, 1]                            # twice on a rank
new[1, 0, [0, 1]] = new[1, 0, [1, 0]]                  # moved within its rank
new[2][new[2] == 63] = 62                              # nowhere
broken = [bool((new[i] != old[i]).any()) for i in range(3)]
eplb_worker.EplbWorker.check_expert_placement(None, old, new)
answer(broken=broken, taken_back=torch.equal(old, new))
""")
    assert found == {"broken": [True] * 3, "taken_back": True}


def test_the_engine_reads_our_map_and_we_read_the_one_that_it_writes(tmp_path):
    import equipoise as eq
    from equipoise.engines.formats import read_placement, save_placement
    from equipoise.engines.layered import LayeredPlacement

    plan = eq.solve(eq.PlacementProblem([[5, 4, 3, 2, 1, 1]] * 2, eq.Cluster(num_ranks=4, slots_per_rank=2)))
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    save_placement(LayeredPlacement.of(plan.placement, (0, 1)), "vllm-ascend", ours)
    found = run(f"""
config = types.SimpleNamespace(expert_map_path={str(ours)!r}, dynamic_eplb=True, num_redundant_experts=2)
seen = []
for layer in range(2):
    placement, slots = eplb_utils.expert_file_to_tensor({str(ours)!r}, layer)
    moe = types.SimpleNamespace(num_experts=6, ep_size=4, ep_rank=2)
    maps, own, log2phy, redundant = eplb_utils.init_eplb_config(config, layer, moe)
    seen.append(dict(table=placement.flatten().tolist(), slots=slots, redundant=redundant, maps=maps.tolist()))
from vllm_ascend.eplb.adaptor.vllm_adaptor import VllmEplbAdaptor
maps = torch.tensor([layer["maps"] for layer in seen])
VllmEplbAdaptor._export_tensor_to_file(types.SimpleNamespace(rank_id=0), maps, {str(theirs)!r})
answer(seen=seen)
""")
    table = plan.placement.physical_to_logical.tolist()
    assert [layer["table"] for layer in found["seen"]] == table
    assert [(layer["slots"], layer["redundant"]) for layer in found["seen"]] == [(8, 2)] * 2
    assert read_placement(theirs).physical_to_logical.tolist() == table


def test_the_newer_model_runner_refuses_dynamic_eplb_and_is_built_on_vllms():
    # What docs/engines/vllm-ascend.md says of it, read from the source, since it needs an NPU to be imported.
    runner = (Path(os.environ["EQUIPOISE_ENGINE_FOLDER"]) / "vllm_ascend/worker/v2/model_runner.py").read_text()
    assert "from vllm.v1.worker.gpu.model_runner import GPUModelRunner" in runner
    assert "class NPUModelRunner(GPUModelRunner)" in runner
    assert "dynamic_eplb is not supported by Ascend NPU model runner v2." in runner
    worker = (Path(os.environ["EQUIPOISE_ENGINE_FOLDER"]) / "vllm_ascend/worker/worker.py").read_text()
    assert "VLLM_USE_V2_MODEL_RUNNER is not supported on vllm 0.23.0; falling back to v1 model runner." in worker


IN_PLACE_OF_THEIRS = (
    START.split("L, R, S, E")[0]
    + """
assert getattr(policy_factory.DefaultEplb, "by_equipoise", False), "the plug-in did not load"
policy_factory.SwiftBalanceEplb = policy_factory.FlashLB = policy_factory.DefaultEplb
policy_factory.warm_up = lambda: None  # compiles what is not used
torch.npu = types.SimpleNamespace(device_count=None)
"""
)


def test_the_engines_own_tests_of_its_better_policies_pass_with_ours_in_their_place(tmp_path):
    (tmp_path / "with_ours.py").write_text(IN_PLACE_OF_THEIRS)
    report = tmp_path / "report.xml"
    options = ["--noconftest", "-p", "with_ours", f"--junitxml={report}", "-c", os.devnull, f"--rootdir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(OWN_TESTS / "core" / "policy" / "test_policy_factory.py")],
        env={
            **os.environ,
            "VLLM_PLUGINS": "equipoise-ascend",
            "EQUIPOISE_VLLM_ASCEND": "1",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]),
        },
        timeout=3000, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    found = {case.get("name"): [child.tag for child in case] for case in ElementTree.parse(report).iter("testcase")}
    assert found == {"test_swift_balance_rebalance_experts": [], "test_flashlb_rebalance_experts": []}, done.stdout


SHARED = """
def sent(maps, tp=None):
    # What every rank's own map says: [ranks, experts].
    return torch.stack([eplb_worker.generate_log2phy_map(maps, rank, tp_size=tp) for rank in range(R)])
"""


def test_source_ranks_are_given_out_by_the_shares_in_the_engines_own_maps():
    found = run(
        SHARED
        + """
eplb_worker.get_ep_group = lambda: types.SimpleNamespace(rank_in_group=3)
worker = eplb_worker.EplbWorker({"expert_maps": start()}, 1)
before = worker.shared_dict["expert_maps"].clone()
tokens = load(0, worker.global2local(before, S).numpy())
worker.shared_dict["moe_load"] = tokens
update = worker.do_update()
after = worker.shared_dict["expert_maps"]
from equipoise.engines.vllm_ascend import SHARED as known
off = dormant = uneven = 0
for layer in range(L):
    row = np.full(R * S, -1)
    for rank in range(R):
        for expert in range(E):
            if after[layer, rank, expert] >= 0:
                row[rank * S + int(after[layer, rank, expert])] = expert
    values = known.find(row.astype(np.int64))
    got = np.bincount(sent(after[layer]).numpy().ravel(), minlength=R * S) / R
    off = max(off, float(np.abs(got - values).max()))
    uneven += int((np.abs(values - 1 / np.bincount(row, minlength=E)[row]) > 0.1).sum())
mine = {int(layer): log2phy for _, _, _, log2phy, layer in update}
rank = worker.rank_id
answer(off=off, uneven=uneven, same=all(mine[l] == sent(after[l])[rank].tolist() for l in mine))
""",
        EQUIPOISE_VLLM_ASCEND="1",
        EQUIPOISE_VLLM_ASCEND_SHARES="1",
    )
    assert found["uneven"] > 0
    assert found["off"] <= 1 / 8
    assert found["same"]


def test_with_the_door_closed_the_maps_are_the_engines_own():
    script = (
        SHARED
        + """
from vllm_ascend.eplb.core import eplb_utils as utils
answer(same=utils.generate_log2phy_map is eplb_worker.generate_log2phy_map,
       ours=hasattr(utils.generate_log2phy_map, "replaced_by_equipoise"))
"""
    )
    assert run(script, EQUIPOISE_VLLM_ASCEND="1") == {"same": True, "ours": False}
    assert run(script, EQUIPOISE_VLLM_ASCEND="1", EQUIPOISE_VLLM_ASCEND_SHARES="1") == {"same": True, "ours": True}
    assert run(script, EQUIPOISE_VLLM_ASCEND_SHARES="1") == {"same": True, "ours": False}
