"""The dispatch rule of the real vLLM-Ascend: which replica each rank sends to, by its own function."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

try:
    version("vllm-ascend")
except PackageNotFoundError:
    pytest.skip("vllm-ascend is not installed", allow_module_level=True)
pytestmark = pytest.mark.engines

HERE = Path(__file__).parent
SCRIPT = f"""
import sys, types
sys.path.insert(0, {str(HERE)!r})
import vllm.distributed, vllm.model_executor.layers.fused_moe.expert_map_manager  # before the empty module is there
sys.modules["torch_npu"] = types.ModuleType("torch_npu")
import numpy as np, torch
from vllm_ascend.eplb.core.eplb_utils import generate_log2phy_map
from equipoise.dispatch.rules import RULES
from rules import chosen, random_placement
for seed in range(40):
    held = random_placement(seed)
    table = held.physical_to_logical[0].reshape(8, 5)
    if any(len(set(row)) < 5 for row in table.tolist()):
        continue  # its own maps hold an expert once on a rank
    maps = torch.full((8, 32), -1)
    for rank in range(8):
        maps[rank, torch.from_numpy(table[rank].astype(np.int64))] = torch.arange(5)
    for rank in range(8):
        found = generate_log2phy_map(maps, rank).numpy()
        ids = np.arange(32).reshape(32, 1)
        assert np.array_equal(found[ids], chosen(RULES["ascend"], held, ids, 0, rank)), (seed, rank)
    print("compared", seed)
"""


def test_each_rank_sends_where_the_engines_own_function_says():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "VLLM_PLUGINS": ""}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("compared") >= 3
