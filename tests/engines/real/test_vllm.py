"""Inside the real vLLM: its own plug-in loader, its own table of policies, its own accounting.

Run by ``make test-engines``, in the environment that ``tests/engines/environments.py`` builds. Each test that needs
a fresh engine runs a script in a process of its own; what the script prints last is JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.engines

START = """
import json, logging, sys, time
import numpy as np, torch
from vllm.distributed.eplb import policy
from vllm.plugins import load_plugins_by_group
lines = []
class Keep(logging.Handler):
    def emit(self, record): lines.append((record.levelname, record.getMessage()))
log = logging.getLogger("vllm.equipoise"); log.addHandler(Keep()); log.setLevel(logging.INFO)
builtin = policy.EPLB_POLICIES["default"]
def load_again():
    import vllm.plugins
    vllm.plugins.plugins_loaded = False
    vllm.plugins.load_general_plugins()
def loads(layers=58, experts=256, seed=0):
    heat = np.random.default_rng(seed).gamma(0.8, 1.0, (layers, experts))
    return torch.from_numpy((1e5 * heat).astype(np.int32))
def answer(**values): print(json.dumps(values))
"""


def run(script, **environment):
    """Return what ``script`` prints last, as JSON, from a process that has vLLM and no plug-in but ours."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EQUIPOISE_VLLM")}
    done = subprocess.run(
        [sys.executable, "-c", START + script],
        env={**clean, "VLLM_PLUGINS": "equipoise", **environment},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_engines_own_loader_puts_our_policy_in_the_engines_own_table():
    found = run("""
load_again(); first = policy.EPLB_POLICIES["default"]
load_again(); second = policy.EPLB_POLICIES["default"]
from vllm.distributed.eplb import eplb_utils
import vllm.distributed.eplb.policy as again
answer(name=first.__name__, same=first is second, lines=lines, table=again.EPLB_POLICIES is policy.EPLB_POLICIES,
       policy=issubclass(first, policy.AbstractEplbPolicy))
""")
    assert found["name"] == "EquipoisePolicy"
    assert found["same"]
    assert found["table"]
    assert found["policy"]
    ((level, line),) = found["lines"]
    assert level == "INFO"
    assert "replaced DefaultEplbPolicy" in line


def test_the_off_switch_leaves_the_built_in_policy_and_restores_it():
    found = run("""
import os
load_again(); on = policy.EPLB_POLICIES["default"] is not builtin
os.environ["EQUIPOISE_VLLM"] = "0"
load_again(); off = policy.EPLB_POLICIES["default"] is builtin
answer(on=on, off=off)
""")
    assert found == {"on": True, "off": True}
    assert run('load_again(); answer(off=policy.EPLB_POLICIES["default"] is builtin)', EQUIPOISE_VLLM="0")["off"]


PLANS = """
def accounting(weight, table, ranks):
    counts = torch.zeros_like(weight, dtype=torch.float64)
    counts = counts.scatter_add_(1, table, torch.ones_like(table, dtype=torch.float64))
    slot = torch.gather(weight.double() / counts, 1, table)
    return slot.reshape(len(table), ranks, -1).sum(-1)
def stays(new, old, ranks):
    stayed = kept = 0
    for a, b in zip(new.reshape(len(new), ranks, -1).tolist(), old.reshape(len(old), ranks, -1).tolist()):
        for here, there in zip(a, b):
            stayed += sum(min(here.count(e), there.count(e)) for e in set(here))
            kept += sum(x == y for x, y in zip(here, there))
    return stayed, kept
"""


def test_a_fresh_plan_keeps_the_contract_and_beats_the_built_in_one():
    found = run(
        PLANS
        + """
load_again(); ours = policy.EPLB_POLICIES["default"]
old = torch.arange(288).repeat(58, 1) % 256
weight = loads()
report = {}
for name, planner in (("ours", ours), ("builtin", builtin)):
    out = planner.rebalance_experts(weight, 288, 8, 1, 32, old)
    again = planner.rebalance_experts(weight, 288, 8, 1, 32, old)
    per_rank = accounting(weight, out, 32)
    stayed, kept = stays(out, old, 32)
    report[name] = dict(
        type=[str(out.dtype), out.device.type, list(out.shape)], complete=all(len(set(r)) == 256 for r in out.tolist()),
        repeat=torch.equal(out, again), busiest=per_rank.max(1).values.sum().item(),
        duplicates=sum(len(r) - len(set(r)) for l in out.reshape(58, 32, 9).tolist() for r in l),
        stayed=stayed, kept=kept)
answer(lines=lines, **report)
"""
    )
    ours, builtin = found["ours"], found["builtin"]
    assert ours["type"] == builtin["type"] == ["torch.int64", "cpu", [58, 288]]
    assert ours["complete"]
    assert ours["repeat"]
    assert ours["busiest"] < builtin["busiest"]
    assert ours["duplicates"] == 0
    assert ours["stayed"] == ours["kept"] > builtin["kept"]
    assert [level for level, _ in found["lines"]] == ["INFO", "INFO", "INFO"]  # replaced, first plan, later plan
    assert "gap to the proved lower bound" in found["lines"][1][1]


def test_profile_runs_elastic_maps_and_bad_counts_are_taken_as_the_contract_says():
    found = run("""
load_again(); ours = policy.EPLB_POLICIES["default"]
weight = loads(4, 64)
profile = ours.rebalance_experts(torch.zeros(4, 64, dtype=torch.int32), 72, 8, 1, 8, torch.arange(72).repeat(4, 1) % 64)
held = ours.rebalance_experts(weight, 72, 1, 1, 8, None)
grown = torch.cat([held, torch.full((4, 18), -1)], 1)
up = ours.rebalance_experts(loads(4, 64, 1), 90, 1, 1, 10, grown)
down = ours.rebalance_experts(loads(4, 64, 2), 72, 1, 1, 8, up)
odd = ours.rebalance_experts(weight, 72, 3, 2, 8, held)
nodes = ours.rebalance_experts(weight, 72, 8, 2, 8, held)
failures = []
for call in ((torch.ones(2, 7), 7, 2, 2, 4), (torch.ones(2, 8), 4, 1, 1, 4)):
    for planner in (ours, builtin):
        try:
            planner.rebalance_experts(*call)
        except AssertionError:
            failures.append(True)
answer(profile=list(profile.shape), up=list(up.shape), down=list(down.shape), odd=list(odd.shape),
       least=int(min(up.min(), down.min())), failures=failures,
       whole=[len(set((r[:36] // 8).tolist()) & set((r[36:] // 8).tolist())) for r in nodes])
""")
    assert found["profile"] == found["down"] == found["odd"] == [4, 72]
    assert found["up"] == [4, 90]
    assert found["least"] == 0
    assert found["failures"] == [True] * 4
    assert found["whole"] == [0] * 4


def test_a_changed_signature_is_refused_with_one_line():
    found = run("""
class Changed(builtin):
    @classmethod
    def rebalance_experts(cls, weight, num_replicas, num_groups, num_nodes, num_ranks, old_map=None, health=None):
        return None
policy.EPLB_POLICIES["default"] = Changed
load_again()
answer(same=policy.EPLB_POLICIES["default"] is Changed, lines=lines)
""")
    assert found["same"]
    ((level, line),) = found["lines"]
    assert level == "WARNING"
    assert "does not know this vLLM (0.33.0" in line


def test_a_saved_plan_is_the_static_map_that_vllm_does_not_have(tmp_path):
    import equipoise as eq

    plan = eq.solve(eq.PlacementProblem([[5, 4, 3, 2, 1, 1]] * 2, eq.Cluster(num_ranks=4, slots_per_rank=2)))
    plan.save(tmp_path / "plan.json")
    script = """
load_again(); ours = policy.EPLB_POLICIES["default"]
table = ours.rebalance_experts(loads(2, 6, 5), 8, 1, 1, 4, None)
try:
    ours.rebalance_experts(loads(3, 6), 8, 1, 1, 4, None)
except ValueError as error:
    answer(table=table.tolist(), error=str(error))
"""
    found = run(script, EQUIPOISE_VLLM_PLAN=str(tmp_path / "plan.json"))
    assert found["table"] == plan.placement.physical_to_logical.tolist()
    assert "no saved plan fits this engine" in found["error"]


def test_loading_the_plug_in_adds_less_than_half_a_second_to_a_process_that_has_vllm():
    found = run("""
start = time.perf_counter()
load_again()
answer(seconds=time.perf_counter() - start, numba="numba" in sys.modules)
""")
    assert found["seconds"] < 0.5
    assert not found["numba"]


COMPILED = """
import gc
from numba.core.dispatcher import Dispatcher
kernels = [d for d in gc.get_objects() if isinstance(d, Dispatcher)]
missed = [d.py_func.__qualname__ for d in kernels if sum(d.stats.cache_misses.values())]
hits = sum(sum(d.stats.cache_hits.values()) for d in kernels)
"""


def test_nothing_is_compiled_in_the_first_rebalance_after_a_warm_up(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", "from equipoise.engines.warming import warm_up; warm_up()"],
        env={**os.environ, **cache}, check=True, timeout=1800,
    )  # fmt: skip
    found = run(
        """
load_again(); ours = policy.EPLB_POLICIES["default"]
old = torch.arange(288).repeat(58, 1) % 256
ours.rebalance_experts(torch.zeros(58, 256, dtype=torch.int32), 288, 8, 1, 32, old)
for groups, nodes in ((8, 1), (8, 4), (3, 2)):
    held = ours.rebalance_experts(loads(), 288, groups, nodes, 32, old)
    ours.rebalance_experts(loads(seed=1), 288, groups, nodes, 32, held)
ours.rebalance_experts(loads(), 320, 8, 1, 64, None)
"""
        + COMPILED
        + "answer(missed=missed, hits=hits)",
        **cache,
    )
    assert found["missed"] == []
    assert found["hits"] > 0


SHARED = """
from vllm.distributed.eplb import eplb_state
plain = eplb_state.compute_logical_maps
eplb_state.PIN_MEMORY = False  # there is no accelerator to pin memory for
def state(table, experts):
    # What an engine holds of a model: the tables that its router reads, 1024 wide.
    layers, slots = table.shape
    return __import__("types").SimpleNamespace(
        physical_to_logical_map=torch.zeros(layers, slots, dtype=torch.int64),
        logical_to_physical_map=torch.full((layers, experts, 1024), -1),
        logical_replica_count=torch.zeros(layers, experts, dtype=torch.int64))
def route(state, layer, expert, tokens):
    # The rule of vLLM's router, which is a Triton kernel and needs a GPU; its text is held below.
    hashed = (torch.arange(tokens) * 2654435769) & 0xFFFFFFFF
    replica = hashed % state.logical_replica_count[layer, expert]
    return torch.bincount(state.logical_to_physical_map[layer, expert, replica], minlength=9) / tokens
"""


def shared_plan(path):
    """Save a plan of nine slots whose shares are .75/.25, .5/.3/.2, and one replica that sleeps."""
    import dataclasses

    import equipoise as eq

    table = [[0, 1, 2, 0, 1, 2, 3, 1, 3], [1, 1, 2, 0, 1, 2, 3, 0, 3]]
    values = [[0.75, 0.5, 1, 0.25, 0.3, 0, 0.5, 0.2, 0.5], [0.2, 0.3, 0, 0.25, 0.5, 1, 1, 0.75, 0]]
    placement = eq.Placement(table, 3, 4)
    plan = eq.solve(eq.PlacementProblem([[4, 4, 2, 2]] * 2, eq.Cluster(3, 3)), current=placement, max_transfers=0)
    dataclasses.replace(plan, shares=eq.Shares(values, placement)).save(path)
    return table, values


def test_shares_are_realised_by_the_engines_own_tables_in_one_commit_and_layer_by_layer(tmp_path):
    table, values = shared_plan(tmp_path / "plan.json")
    found = run(
        SHARED
        + """
load_again(); ours = policy.EPLB_POLICIES["default"]
table = ours.rebalance_experts(loads(2, 4), 9, 1, 1, 3, None)
whole, single = state(table, 4), state(table, 4)
eplb_state._commit_eplb_maps(whole, table)
for layer in range(2):
    eplb_state._commit_eplb_maps_for_layer(single, table[layer], layer)
same = all(torch.equal(getattr(whole, name), getattr(single, name)) for name in vars(whole))
got = {n: [sum(route(whole, l, e, n) for e in range(4)).tolist() for l in range(2)] for n in (64, 256, 1000)}
other = table.flip(1)
answer(table=table.tolist(), same=same, got=got, lines=lines,
       elsewhere=all(torch.equal(a, b) for a, b in zip(eplb_state.compute_logical_maps(other, 4), plain(other, 4))))
""",
        EQUIPOISE_VLLM_SHARES="1",
        EQUIPOISE_VLLM_PLAN=str(tmp_path / "plan.json"),
    )
    assert found["table"] == table
    assert found["same"]
    assert found["elsewhere"], "a placement without shares gets vLLM's own tables"
    for tokens, off in (("64", 0.05), ("256", 0.02), ("1000", 0.02)):
        for got, asked in zip(found["got"][tokens], values, strict=True):
            assert max(abs(a - b) for a, b in zip(got, asked, strict=True)) <= off
            assert [a == 0 for a in got] == [b == 0 for b in asked], "a dormant replica gets nothing"


def test_the_router_chooses_by_the_rule_that_the_tables_are_made_for():
    found = run("""
import inspect
from vllm.model_executor.layers.fused_moe.router import base_router
text = inspect.getsource(base_router)
answer(held=[part in text for part in ("KNUTH_MULTIPLIER = 2654435769", "token_idx * KNUTH_MULTIPLIER) & 0xFFFFFFFF",
                                       "hashed % replica_count", "offs // num_active_experts")])
""")
    assert found["held"] == [True] * 4


def test_with_the_door_closed_the_tables_are_the_engines_own():
    script = (
        SHARED
        + """
load_again(); ours = policy.EPLB_POLICIES["default"]
closed = eplb_state.compute_logical_maps is plain
table = ours.rebalance_experts(loads(), 288, 8, 1, 32, None)
made = zip(eplb_state.compute_logical_maps(table, 256), plain(table, 256))
answer(closed=closed, same=[torch.equal(a, b) for a, b in made])
"""
    )
    assert run(script) == {"closed": True, "same": [True, True]}
    assert run(script, EQUIPOISE_VLLM_SHARES="1") == {"closed": False, "same": [False, False]}


def test_live_shares_follow_the_load_and_spare_transfers():
    found = run(
        SHARED
        + """
load_again(); ours = policy.EPLB_POLICIES["default"]
weight = loads()
held = ours.rebalance_experts(weight, 288, 8, 1, 32, None)
drifted = (weight * torch.from_numpy(np.exp(np.random.default_rng(5).normal(0, 0.1, weight.shape)))).int()
table = ours.rebalance_experts(drifted, 288, 8, 1, 32, held)
lists, count = eplb_state.compute_logical_maps(table, 256)
share = torch.zeros(58, 288, dtype=torch.float64)
for layer in range(58):
    for expert in range(256):
        for slot in lists[layer, expert, : count[layer, expert]].tolist():
            share[layer, slot] += 1 / count[layer, expert].item()
carried = (share * torch.gather(drifted.double(), 1, table)).reshape(58, 32, 9).sum(-1)
answer(balance=(carried.mean(1) / carried.max(1).values).mean().item(), moved=int((table != held).sum()),
       width=lists.shape[-1], lines=lines)
""",
        EQUIPOISE_VLLM_SHARES="1",
        EQUIPOISE_VLLM_MIN_GAIN="0.02",
    )
    assert found["balance"] > 0.97
    assert found["width"] == 64


def test_a_function_that_is_not_known_is_refused_with_one_line_and_the_plans_stay_even():
    found = run(
        SHARED
        + """
eplb_state.compute_logical_maps = lambda physical_to_logical_map, num_logical_experts, device=None: None
changed = eplb_state.compute_logical_maps
load_again()
ours = policy.EPLB_POLICIES["default"]
answer(same=eplb_state.compute_logical_maps is changed, ours=ours is not builtin, lines=lines)
""",
        EQUIPOISE_VLLM_SHARES="1",
    )
    assert found["same"]
    assert found["ours"]
    assert [level for level, _ in found["lines"]] == ["WARNING", "INFO"]
    assert "leaves replicas of this vLLM even shares" in found["lines"][0][1]


def test_switching_off_puts_the_engines_own_tables_back():
    found = run(
        SHARED
        + """
import os
load_again(); on = eplb_state.compute_logical_maps is not plain
load_again(); again = eplb_state.compute_logical_maps.replaced_by_equipoise is plain
os.environ["EQUIPOISE_VLLM"] = "0"
load_again()
answer(on=on, again=again, off=eplb_state.compute_logical_maps is plain)
""",
        EQUIPOISE_VLLM_SHARES="1",
    )
    assert found == {"on": True, "again": True, "off": True}
