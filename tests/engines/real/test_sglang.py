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


SHARED = """
from sglang.srt.eplb import expert_location_dispatch as dispatch
def server(algorithm, slots=9, ranks=3, a2a="deepep"):
    stand_in(layers=2, experts=4, slots=slots, ranks=ranks, groups=None)
    moe = expert_location.get_exec().moe
    moe.ep_dispatch_algorithm, moe.moe_a2a_backend = algorithm, a2a
    expert_location._prefer_same_node_experts = lambda: False
    dispatch.get_exec = expert_location.get_exec
def seen_by(rank, count=loads(2, 4, dense=0)):
    torch.distributed.get_rank = lambda: rank
    return expert_location.ExpertLocationMetadata.init_by_eplb(None, count)
def route(made, layer, tokens):
    # As SGLang's own router does, every expert once a token.
    dispatch.get_global_expert_location_metadata = lambda: made
    info = dispatch.ExpertLocationDispatchInfo.init_new(layer)
    chosen = dispatch.topk_ids_logical_to_physical(torch.arange(4).repeat(tokens, 1), info)
    return chosen
"""


def shared_plan(path, ranks=3):
    """Save a plan of nine slots whose shares are .75/.25, .5/.3/.2, and one replica that sleeps."""
    import dataclasses

    import equipoise as eq

    table = [[0, 1, 2, 0, 1, 2, 3, 1, 3], [1, 1, 2, 0, 1, 2, 3, 0, 3]]
    values = [[0.75, 0.5, 1, 0.25, 0.3, 0, 0.5, 0.2, 0.5], [0.2, 0.3, 0, 0.25, 0.5, 1, 1, 0.75, 0]]
    placement = eq.Placement(table, ranks, 4)
    plan = eq.solve(eq.PlacementProblem([[4, 4, 2, 2]] * 2, eq.Cluster(3, 3)), current=placement, max_transfers=0)
    dataclasses.replace(plan, shares=eq.Shares(values, placement)).save(path)
    return table, values


def shared_environment(path):
    return {"EQUIPOISE_SGLANG_SHARES": "1", "EQUIPOISE_SGLANG_PLAN": str(path)}


def test_the_engines_own_router_realises_shares_with_and_without_an_all_to_all(tmp_path):
    table, values = shared_plan(tmp_path / "plan.json")
    # Nine slots make lists of eight entries, which three replicas of .5/.3/.2 are within .05 of.
    found = run(
        SHARED
        + """
load_again(); report = {}
for a2a in ("none", "deepep"):
    server("dynamic", a2a=a2a)
    made, other = seen_by(0), seen_by(2)
    torch.manual_seed(0)
    taken = [torch.bincount(route(made, layer, 4096).flatten(), minlength=9) / 4096 for layer in range(2)]
    report[a2a] = [each.tolist() for each in taken]
    report[a2a + " alike"] = torch.equal(made.logical_to_all_physical_map, other.logical_to_all_physical_map)
answer(table=made.physical_to_logical_map.tolist(), **report)
""",
        **shared_environment(tmp_path / "plan.json"),
    )
    assert found["table"] == table
    assert found["none alike"]
    for a2a, off in (("none", 0.051), ("deepep", 0.07)):
        for got, asked in zip(found[a2a], values, strict=True):
            assert max(abs(a - b) for a, b in zip(got, asked, strict=True)) <= off
            assert [a == 0 for a in got] == [b == 0 for b in asked]


WIDE = """
load_again(); server("{algorithm}", slots=72, ranks=24, a2a="{a2a}")
made = [seen_by(rank, loads(2, 4, dense=0)) for rank in range(24)]
"""


def wide_plan(path):
    """Save a plan of 72 slots on 24 ranks, four experts in turn, with all the shares that are asked for."""
    import dataclasses

    import numpy as np

    import equipoise as eq

    table = np.tile(np.arange(72) % 4, (2, 1))
    values = np.zeros((2, 72))
    for expert, parts in enumerate(((0.75, 0.25), (0.5, 0.3, 0.2), (1.0,), (0.125,) * 8)):
        values[:, np.flatnonzero(table[0] == expert)[2 : 2 + len(parts)]] = parts
    placement = eq.Placement(table, 24, 4)
    plan = eq.solve(eq.PlacementProblem([[4, 4, 2, 2]] * 2, eq.Cluster(24, 3)), current=placement, max_transfers=0)
    dataclasses.replace(plan, shares=eq.Shares(values, placement)).save(path)
    return values[0]


def test_lists_of_64_realise_shares_within_two_hundredths_at_256_tokens(tmp_path):
    values = wide_plan(tmp_path / "plan.json")
    script = (
        SHARED
        + WIDE.format(algorithm="dynamic", a2a="none")
        + """
taken = {n: torch.bincount(route(made[0], 0, n).flatten(), minlength=72) / n for n in (64, 256)}
answer(**{str(n): each.tolist() for n, each in taken.items()})
"""
    )
    found = run(script, **shared_environment(tmp_path / "plan.json"))
    for tokens, off in (("256", 0.02), ("64", 0.05)):
        assert max(abs(a - b) for a, b in zip(found[tokens], values, strict=True)) <= off
        assert [a == 0 for a in found[tokens]] == [b == 0 for b in values]


def test_static_dispatch_gives_source_ranks_out_by_the_shares(tmp_path):
    values = wide_plan(tmp_path / "plan.json")
    script = (
        SHARED
        + WIDE.format(algorithm="static", a2a="deepep")
        + """
sent = torch.stack([m.logical_to_rank_dispatch_physical_map[0] for m in made])
own = int(made[2].logical_to_all_physical_map[0, 0, 0])
answer(got=(torch.bincount(sent.flatten(), minlength=72) / 24).tolist(), at_home=sent[:, 0].tolist())
"""
    )
    found = run(script, **shared_environment(tmp_path / "plan.json"))
    assert max(abs(a - b) for a, b in zip(found["got"], values, strict=True)) <= 1 / 24
    assert [a == 0 for a in found["got"]] == [b == 0 for b in values]
    for rank, slot in enumerate(found["at_home"]):
        if rank * 3 <= slot < rank * 3 + 3:
            break
    else:
        raise AssertionError("no rank uses its own replica")


def test_weights_go_to_dormant_replicas_too(tmp_path):
    table, _ = shared_plan(tmp_path / "plan.json")
    found = run(
        SHARED
        + """
load_again(); server("dynamic")
made = seen_by(0)
answer(slots=[[made.logical_to_all_physical(layer, expert) for expert in range(4)] for layer in range(2)])
""",
        **shared_environment(tmp_path / "plan.json"),
    )
    asked = [[[s for s, held in enumerate(row) if held == e] for e in range(4)] for row in table]
    assert found["slots"] == asked


def test_with_the_door_closed_or_a_solver_for_each_batch_the_lists_are_the_published_ones(tmp_path):
    shared_plan(tmp_path / "plan.json")
    script = (
        SHARED
        + """
load_again(); server("lp")
made = seen_by(0)
answer(count=made.logical_to_all_physical_map_num_valid.tolist(),
       hooked=hasattr(expert_location.compute_logical_to_rank_dispatch_physical_map, "by_equipoise"))
"""
    )
    plan = {"EQUIPOISE_SGLANG_PLAN": str(tmp_path / "plan.json")}
    assert run(script, **plan) == {"count": [[2, 3, 2, 2]] * 2, "hooked": False}
    assert run(script, **shared_environment(tmp_path / "plan.json"))["count"] == [[2, 3, 2, 2]] * 2
    assert run(script.replace('"lp"', '"dynamic"'), **plan)["count"] == [[2, 3, 2, 2]] * 2
