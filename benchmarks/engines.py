"""Inside the real engines: the built-in planner and ours, through the engine's own entry point.

    python benchmarks/engines.py [vllm] [sglang] [--repeats 30] [--threads N]

Runs in the environments that ``tests/engines/environments.py`` builds. Loads are DeepSeek-V3's, recorded ones where
``EQUIPOISE_SHARED_DATA`` names them and made-up ones otherwise: the placement in force was planned on one, the
planners then see the other. Answers are checked before anything is timed: complete maps, no expert twice on a rank,
what stays on a rank in its slot, and rank loads as the engine counts them (every replica load / replicas) within
0.1 % of the certificate. Both planners are timed in turn in one process. Prints a table and appends it to
benchmarks/results/engines.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness

sys.path.insert(0, str(harness.ROOT / "tests" / "engines"))
import environments

# (slots, ranks, groups, nodes); 1 node is a global plan
SHAPES = ((288, 32, 8, 1), (288, 32, 8, 4), (320, 64, 8, 1), (288, 144, 8, 1))
RECORDED = "deepseek_v3_prefill_in1024.json", "deepseek_v3_decode_in1000out1000.json"


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description="Planning inside the real engines.")
    parser.add_argument("engines", nargs="*", default=["vllm", "sglang"])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", default="", help="at most so many for our planner")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in args.engines:
        engine = environments.ENGINES[name]
        environments.build(engine)
        with environments.installed(engine) as environment:
            warm = [str(engine.python), "-c", "from equipoise.engines.warming import warm_up; warm_up()"]
            subprocess.run(warm, env=environment, check=True)
            environment[f"EQUIPOISE_{name.upper()}_THREADS"] = args.threads
            environment.setdefault(harness.SHARED_DATA, str(harness._checkout() / ".." / "shared" / "data"))
            environment["VLLM_PLUGINS"] = environment["SGLANG_PLUGINS"] = "equipoise"
            command = [str(engine.python), __file__, "--inside", name, str(args.repeats)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        rows += json.loads(done.stdout.strip().splitlines()[-1])
    harness.print_table(rows)
    path = harness.record("engines", rows, threads=args.threads or "all")
    print(f"\nappended to {path.relative_to(harness.ROOT)} at {harness.commit()}")


def inside(name: str, repeats: int) -> None:
    """Check and time one engine, in its own environment; print the rows as JSON."""
    import statistics
    import time

    import torch

    before, after, source = two_loads()
    call = {"vllm": vllm, "sglang": sglang}[name]()
    rows = []
    for slots, ranks, groups, nodes in SHAPES:
        arguments = (slots, groups, nodes, ranks)
        held = call("ours", torch.from_numpy(before), arguments, None)
        weight = torch.from_numpy(after)
        checked = check(call("ours", weight, arguments, held), held, after, arguments)
        theirs = check(call("built-in", weight, arguments, held), held, after, arguments, strict=False)
        times: dict[str, list[float]] = {"ours": [], "built-in": []}
        for _ in range(repeats):
            for planner, taken in times.items():
                start = time.perf_counter()
                call(planner, weight, arguments, held)
                taken.append(time.perf_counter() - start)
        ours, builtin = (statistics.median(times[planner]) * 1e3 for planner in ("ours", "built-in"))
        rows.append({
            "engine": name,
            "shape": f"{len(after)}x{slots}x{ranks}" + (f", {groups} groups on {nodes} nodes" if nodes > 1 else ""),
            "load": source,
            "built-in ms": round(builtin, 2),
            "ours ms": round(ours, 2),
            "ours / built-in": round(ours / builtin, 3),
            "built-in balancedness": round(theirs["balancedness"], 4),
            "ours balancedness": round(checked["balancedness"], 4),
            "max gap": f"{checked['gap']:.3%}",
            "off certificate": f"{checked['off']:.2e}",
            "built-in duplicates": theirs["duplicates"],
            "ours duplicates": checked["duplicates"],
            "built-in transfers a layer": round((slots * len(after) - theirs["stayed"]) / len(after), 1),
            "ours transfers a layer": round((slots * len(after) - checked["stayed"]) / len(after), 1),
            "ours kept / stayed": f"{checked['kept']}/{checked['stayed']}",
            "built-in kept / stayed": f"{theirs['kept']}/{theirs['stayed']}",
        })  # fmt: skip
    print(json.dumps(rows))


def two_loads() -> tuple[Any, Any, str]:
    """Return two loads of DeepSeek-V3's 58 MoE layers as int32, and where they come from."""
    import numpy as np

    from equipoise.load import drift_load, generate_load, read_load

    folder = Path(os.environ[harness.SHARED_DATA])
    if all((folder / file).is_file() for file in RECORDED):
        loads = [read_load(folder / file).load[3:] for file in RECORDED]
        return (*(load.astype(np.int32) for load in loads), "recorded")  # type: ignore[return-value]
    first = generate_load("deepseek-v3", seed=0)
    second = drift_load(first, 0.3, seed=1)
    return first.load.astype(np.int32), second.load.astype(np.int32), "generated"


def vllm() -> Any:
    """Return a call of vLLM's policy, the built-in one or the one in its table."""
    from vllm.distributed.eplb.policy import EPLB_POLICIES
    from vllm.plugins import load_general_plugins

    policies = {"built-in": EPLB_POLICIES["default"]}
    load_general_plugins()
    policies["ours"] = EPLB_POLICIES["default"]
    assert policies["ours"] is not policies["built-in"], "the plug-in did not load"
    return lambda planner, weight, arguments, held: policies[planner].rebalance_experts(weight, *arguments, held)


def sglang() -> Any:
    """Return a call of SGLang's planner; the placement in force is where the engine would hold it."""
    import types

    from sglang.srt.eplb import eplb_algorithms, expert_location
    from sglang.srt.plugins import load_plugins

    builtin = [eplb_algorithms.rebalance_experts]  # in a list: a hook also replaces names in other modules
    load_plugins()
    assert eplb_algorithms.rebalance_experts is not builtin[0], "the plug-in did not load"

    def call(planner: str, weight: Any, arguments: tuple[int, ...], held: Any) -> Any:
        slots, groups, nodes, ranks = arguments
        metadata = None if held is None else types.SimpleNamespace(physical_to_logical_map_cpu=held)
        expert_location.get_global_expert_location_metadata = lambda: metadata
        run = builtin[0] if planner == "built-in" else eplb_algorithms.rebalance_experts
        return run(
            tokens_per_expert=weight[None],
            num_physical_experts=slots,
            num_local_physical_experts=slots // ranks,
            num_groups=groups,
            num_nodes=nodes,
            algorithm=eplb_algorithms.compute_algorithm("auto", groups, nodes),
        )[0]

    return call


def check(table: Any, held: Any, load: Any, arguments: tuple[int, ...], strict: bool = True) -> dict[str, Any]:
    """Recount a map from its slots; a wrong answer ends the benchmark."""
    import numpy as np

    import equipoise as eq
    from equipoise.certificate import certify

    slots, groups, nodes, ranks = arguments
    hierarchical = groups % nodes == 0 and nodes > 1
    cluster = eq.Cluster.from_slots(ranks, slots, nodes if hierarchical else 1)
    problem = eq.PlacementProblem(load, cluster, groups if hierarchical else None)
    new, old = table.numpy(), held.numpy()
    replicas = np.stack([np.bincount(row, minlength=load.shape[1]) for row in new])
    per_slot = np.take_along_axis(load / replicas, new, axis=1)
    rank_load = per_slot.reshape(len(new), ranks, -1).sum(axis=2)
    certificate = certify(problem, eq.Placement(new, ranks, load.shape[1]))
    off = float(np.abs(rank_load.max(axis=1) / certificate.max_rank_load - 1).max())
    stayed = kept = duplicates = 0
    for here, there in zip(
        new.reshape(-1, slots // ranks).tolist(), old.reshape(-1, slots // ranks).tolist(), strict=True
    ):
        stayed += sum(min(here.count(e), there.count(e)) for e in set(here))
        kept += sum(a == b for a, b in zip(here, there, strict=True))
        duplicates += len(here) - len(set(here))
    if strict:
        assert off < 1e-3, "the engine's accounting and the certificate differ"
        assert not duplicates, "an expert is twice on a rank"
        assert kept == stayed, "an expert moved within its rank"
    balancedness = float((rank_load.mean(axis=1) / rank_load.max(axis=1)).mean())
    return {"off": off, "gap": certificate.max_gap, "balancedness": balancedness, "stayed": stayed, "kept": kept,
            "duplicates": duplicates}  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], int(sys.argv[3]))
    else:
        main()
