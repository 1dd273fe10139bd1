"""What rearranging costs inside the real vLLM: the built-in policy and ours, through the engine's own machinery.

    python benchmarks/moving.py [--layers 58]

Runs in the environment that ``tests/engines/environments.py`` builds, in four processes over gloo without a GPU: 288
slots of 256 experts on four ranks, weights of a few bytes. So transfers and balance are vLLM's, and the time of moving
is that of planning it and of its messages, not of bytes. The load is DeepSeek-V3's decoding, recorded where
``EQUIPOISE_SHARED_DATA`` names it and made up otherwise; then it drifts by .1 % and by 5 %, and turns into another one.
Every weight is checked on every rank before a number is kept. Prints a table and appends it to
benchmarks/results/moving.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import harness

sys.path.insert(0, str(harness.ROOT / "tests" / "engines"))
import environments

WINDOWS = ("first", "drift .1 %", "drift 5 %", "another load")
POLICIES = {"built-in": {"EQUIPOISE_VLLM": "0"}, "ours": {}}


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description="Rearranging inside the real vLLM.")
    parser.add_argument("--layers", type=int, default=58)
    layers = parser.parse_args().layers
    source, first = harness.loads(58)
    _, other = harness.loads(58, recording=harness.RECORDINGS[1])
    random = np.random.default_rng(0)
    windows = [first]
    for drift in (0.001, 0.05):
        windows.append(windows[-1] * random.lognormal(0.0, drift, first.shape))
    loads = np.rint(np.stack([*windows, other])[:, :layers]).astype(np.int64)
    environments.build(environments.VLLM)
    rows = []
    with environments.installed(environments.VLLM) as environment, tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "loads.npy", loads)
        script = harness.ROOT / "tests" / "engines" / "real" / "vllm_moving.py"
        environment["PYTHONPATH"] += f":{harness.ROOT / 'tests'}"
        for policy, variables in POLICIES.items():
            done = subprocess.run(
                [str(environments.VLLM.python), str(script), str(Path(folder) / "loads.npy")],
                env={**environment, "VLLM_PLUGINS": "equipoise", **variables},
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            seen = json.loads(done.stdout.strip().splitlines()[-1])
            rows += [{"policy": policy, "window": name, **row} for name, row in zip(WINDOWS, seen, strict=True)]
    harness.print_table(rows)
    context = {
        "engine": f"vllm {environments.VLLM.version}",
        "loads": source,
        "layers": layers,
        "ranks": 4,
        "slots": 288,
    }
    print("kept in", harness.record("moving", rows, **context))


if __name__ == "__main__":
    main()
