"""Replays against the real SGLang: its own functions that choose replicas, and its own planners."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sglang")
pytestmark = pytest.mark.engines

HERE = Path(__file__).parent
START = f"""
import sys, types
sys.path.insert(0, {str(HERE)!r})
import numpy as np, torch
from sglang.srt.eplb import eplb_algorithms, expert_location, expert_location_dispatch
from equipoise.dispatch.rules import RULES, Maps
from rules import chosen, random_placement
def maps_of(held):
    return torch.from_numpy(held.logical_to_physical.astype(np.int64))
"""


def run(script):
    """Run ``script`` in a process that has SGLang, its own planner in place."""
    done = subprocess.run(
        [sys.executable, "-c", START + script],
        env={**os.environ, "EQUIPOISE_SGLANG": "0"}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_static_every_rank_sends_where_the_engines_own_function_says():
    run("""
for seed in range(4):
    held = random_placement(seed)
    for nodes, prefers in ((1, True), (2, True), (4, True), (1, False)):
        expert_location._prefer_same_node_experts = lambda prefers=prefers: prefers
        expert_location.get_parallel = lambda nodes=nodes: types.SimpleNamespace(ep_size=8, nnodes=nodes)
        for rank in range(8):
            found = expert_location.compute_logical_to_rank_dispatch_physical_map(maps_of(held), 8, 40, rank)
            assert np.array_equal(found.numpy(), Maps(held, nodes).sglang_static[rank]), (seed, nodes, rank)
            info = types.SimpleNamespace(partial_logical_to_rank_dispatch_physical_map=found[1])
            ids = np.random.default_rng([seed, rank]).integers(0, 32, (30, 4))
            sent = expert_location_dispatch._topk_ids_logical_to_physical_static(torch.from_numpy(ids), info)
            assert np.array_equal(sent.numpy(), chosen(RULES["sglang-static"], held, ids, 1, rank, num_nodes=nodes))
""")


def test_dynamic_the_same_draws_lead_to_the_same_slots():
    run("""
for seed in range(4):
    held = random_placement(seed)
    ids = np.random.default_rng(seed).integers(0, 32, (200, 4))
    draws = np.random.default_rng([seed, 1]).integers(0, 65536, ids.shape)
    torch.randint = lambda *a, **k: torch.from_numpy(draws.reshape(-1).astype(np.int32))
    info = types.SimpleNamespace(
        rank_invariant=False, partial_logical_to_all_physical_map=maps_of(held)[2],
        partial_logical_to_all_physical_map_num_valid=torch.from_numpy(held.replica_count[2].astype(np.int64)),
    )
    sent = expert_location_dispatch._topk_ids_logical_to_physical_dynamic(torch.from_numpy(ids), info)
    assert np.array_equal(sent.numpy(), chosen(RULES["sglang-dynamic"], held, ids, 2, 0, draws))
""")


def test_a_replay_of_the_engines_planners_is_what_they_themselves_make_of_each_window():
    run("""
import equipoise as eq
from sglang.srt.eplb.eplb_algorithms import EplbAlgorithm
draw = np.random.default_rng(5)
heat = draw.gamma(0.7, 1.0, (3, 32))
windows = np.array([draw.poisson(300 * heat * np.exp(0.1 * i * draw.standard_normal(heat.shape))) for i in range(9)])
names = {"sglang-deepseek": "deepseek", "sglang-deepseek-vec": "deepseek_vec"}
for cluster, groups in ((eq.Cluster(8, 5), None), (eq.Cluster(8, 5, 2), 4)):
    found = eq.replay(windows, cluster, planners=list(names), every=[1, 3], num_expert_groups=groups)
    for row in found.rows:
        scores, since, table = [], 0, np.tile(np.arange(40) % 32, (3, 1))
        algorithm = EplbAlgorithm[names[row.planner] + ("_hierarchical" if groups else "")]
        for t in range(1, len(windows)):
            if (t - 1) % row.every == 0:
                table = eplb_algorithms.rebalance_experts(
                    tokens_per_expert=torch.from_numpy(windows[since:t]), num_physical_experts=40,
                    num_local_physical_experts=5, num_groups=groups, num_nodes=cluster.num_nodes, algorithm=algorithm,
                )[0].numpy()
                since = t
            count = np.stack([np.bincount(layer, minlength=32) for layer in table])
            load = np.take_along_axis(windows[t] / count, table, 1).reshape(3, 8, 5).sum(axis=2)
            scores.append((load.mean(axis=1) / load.max(axis=1)).mean())
        assert abs(row.balancedness_mean - np.mean(scores)) < 1e-12, row
""")
