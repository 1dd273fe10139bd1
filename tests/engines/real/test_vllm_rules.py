"""Replays against the real vLLM: its own mapping kernel, interpreted without a GPU, and its own planner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.engines

HERE = Path(__file__).parent
START = f"""
import os, sys
sys.path.insert(0, {str(HERE)!r})
import numpy as np, torch
"""


def run(script, **environment):
    """Run ``script`` in a process that has vLLM, its own planner in place."""
    variables = {**os.environ, "VLLM_PLUGINS": "", **environment}
    done = subprocess.run(
        [sys.executable, "-c", START + script], env=variables, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_token_goes_to_the_slot_that_the_engines_own_kernel_names():
    run(
        """
import triton, triton.language
import vllm.triton_utils as utils
utils.triton, utils.tl = triton, triton.language
from vllm.platforms import current_platform
type(current_platform).is_cuda_alike = lambda self=None: True  # else the module has no kernel
from vllm.distributed.eplb.eplb_state import compute_logical_maps
from vllm.model_executor.layers.fused_moe.router import base_router
from equipoise.dispatch.rules import RULES
from rules import chosen, random_placement
always, compared = torch.ones(1, dtype=torch.bool), 0
for seed in range(4):
    held = random_placement(seed)
    maps, count = compute_logical_maps(torch.from_numpy(held.physical_to_logical.astype(np.int64)), 32)
    for layer in range(held.num_layers):
        ids = np.random.default_rng([seed, layer]).integers(0, 32, (60 + seed, 4))
        found = base_router.eplb_map_to_physical_and_record(
            torch.from_numpy(ids.astype(np.int32)), torch.zeros(held.num_slots, dtype=torch.int32),
            maps[layer], count[layer], always, None,
        )
        assert np.array_equal(found.numpy(), chosen(RULES["vllm"], held, ids, layer, rank=0))
        compared += ids.size
assert compared > 2000
""",
        TRITON_INTERPRET="1",
    )


def test_a_replay_of_the_engines_planner_is_what_the_planner_itself_makes_of_each_window():
    run("""
import equipoise as eq
from vllm.distributed.eplb.policy.default import DefaultEplbPolicy
draw = np.random.default_rng(5)
heat = draw.gamma(0.7, 1.0, (3, 32))
windows = np.array([draw.poisson(300 * heat * np.exp(0.1 * i * draw.standard_normal(heat.shape))) for i in range(9)])
for cluster, groups in ((eq.Cluster(8, 5), None), (eq.Cluster(8, 5, 2), 4)):
    found = eq.replay(windows, cluster, planners=["vllm", "plain-greedy"], every=[1, 3], num_expert_groups=groups)
    for row, every in zip(found.rows, (1, 3)):
        held = torch.arange(40).repeat(3, 1) % 32
        scores, since, moved = [], 0, 0
        for t in range(1, len(windows)):
            if (t - 1) % every == 0:
                weight = torch.from_numpy(windows[since:t].sum(axis=0))
                new = DefaultEplbPolicy.rebalance_experts(weight, 40, groups or 1, cluster.num_nodes, 8, held)
                for a, b in zip(new.reshape(-1, 5).tolist(), held.reshape(-1, 5).tolist()):
                    moved += sum(expert not in b for expert in a)
                held, since = new, t
            table = held.numpy()
            count = np.stack([np.bincount(row, minlength=32) for row in table])
            load = np.take_along_axis(windows[t] / count, table, 1).reshape(3, 8, 5).sum(axis=2)
            scores.append((load.mean(axis=1) / load.max(axis=1)).mean())
        assert row.planner == "vllm" and row.every == every
        assert abs(row.balancedness_mean - np.mean(scores)) < 1e-12
        assert abs(row.transfers_per_window - moved / 8) < 1e-9
""")
