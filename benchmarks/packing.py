"""Packing at the defaults against the plain batched tensor program: checked, then timed, in one run.

    python benchmarks/packing.py [--threads 2] [--backends numba torch] [--shapes 288x32 288x144]

Prints a table and appends it to benchmarks/results/packing.jsonl. Ratios are the plain program's time
over the implementation's, both end to end from float weights to a plan. Where other processes kept the
machine busy during either, there is no ratio: contention slows the plain program far more than the others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import harness
from baselines import plain_torch
from equipoise.fixed_point import to_fixed_point
from equipoise.metrics import imbalance_ratio
from equipoise.restarts import Settings, counter

Floats = NDArray[np.float64]
Plan = tuple[NDArray[Any], NDArray[Any]]

MOST_MEGABYTES = 200
MOST_OTHERS = 0.10  # of all processors, used by other processes while a ratio was timed
LAYERS_AT_ONCE = 8  # the plain program is a little faster so than with all layers in one batch


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description="Packing at the defaults against the plain batched tensor program.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backends", nargs="+", default=["numba", "torch"])
    parser.add_argument("--shapes", nargs="+", default=["288x32", "288x144"], help="slots x ranks")
    parser.add_argument("--memory", nargs=2, metavar=("BACKEND", "SHAPE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        return print_memory(*args.memory, args.threads)

    torch.set_num_threads(args.threads)
    source, load = harness.loads()
    print(f"58 layers of 256 experts, {source}; {args.threads} threads; {harness.machine()['processor']}\n")
    rows = [row for shape in args.shapes for row in compare(shape, load, args)]
    harness.print_table(rows)
    path = harness.record("packing", rows, threads=args.threads, load=source)
    print(f"\nappended to {path.relative_to(harness.ROOT)} at {harness.commit()}")
    if any(row["ratio"] is None for row in rows):
        print("Other processes kept the machine busy, so some ratios are left out. Run it again when it is quiet.")
    return None


def compare(shape: str, load: Floats, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Check and time every implementation on one shape; the plain program's row comes first."""
    slots, ranks = (int(number) for number in shape.split("x"))
    weight = harness.replicas(load, slots)

    def plain() -> Plan:
        plan = plain_torch.pack(torch.from_numpy(weight), ranks, layers_at_once=LAYERS_AT_ONCE)
        return plan[0].numpy(), plan[1].numpy()

    runs: dict[str, Callable[[], Plan]] = {
        name: implementation(name, weight, ranks, args.threads) for name in args.backends
    }
    timed = {"plain torch": harness.time_call(plain, repeats=1)}
    timed |= {name: harness.time_call(run, args.repeats) for name, run in runs.items()}

    rows = []
    for name, times in timed.items():
        check(name, *times["result"], ranks)
        rank_load = loads_of(weight, times["result"][0], ranks)
        rows.append(
            {
                "shape": f"58 x {slots} into {ranks}",
                "implementation": name,
                "imbalance ratio": float(imbalance_ratio(rank_load).mean()),
                "(max - min) / mean": float((np.ptp(rank_load, axis=1) / rank_load.mean(axis=1)).mean()),
                "first s": times["first"],
                "steady s": times["median"],
                "ratio": timed["plain torch"]["median"] / times["median"]
                if comparable(timed["plain torch"], times)
                else None,
                "others busy": times["others"],
                "MB above import": None if name == "plain torch" else measure_memory(name, shape, args.threads),
            }
        )
    return rows


def comparable(*timed: dict[str, Any]) -> bool:
    """Whether the machine was quiet enough, as far as it says, for the ratio of the times to mean anything."""
    return all(times["others"] is None or times["others"] <= MOST_OTHERS for times in timed)


def implementation(name: str, weight: Floats, ranks: int, threads: int) -> Callable[[], Plan]:
    """Return a call that packs ``weight`` with one backend, end to end."""

    def run() -> Plan:
        fixed = to_fixed_point(weight, ranks)
        key = counter.row_key(fixed, 0)
        if name == "numba":
            from equipoise.restarts import numba

            return numba.pack(fixed, ranks, Settings(), key, threads)
        from equipoise.restarts import torch as torch_packing

        plan = torch_packing.pack(fixed, ranks, Settings(), key)
        return plan[0].numpy(), plan[1].numpy()

    return run


def loads_of(weight: Floats, pack_index: NDArray[Any], ranks: int) -> Floats:
    """Return the load of each rank, float64 [layers, ranks]."""
    return np.stack([np.bincount(pack, own, ranks) for pack, own in zip(pack_index, weight, strict=True)])


def check(name: str, pack_index: NDArray[Any], rank_in_pack: NDArray[Any], ranks: int) -> None:
    """Refuse a plan in which a place is taken twice or not at all."""
    items = pack_index.shape[1]
    slot = np.sort(pack_index.astype(np.int64) * (items // ranks) + rank_in_pack, axis=1)
    if not (slot == np.arange(items)).all():
        sys.exit(f"{name} returned a plan that does not fill every place once; nothing was recorded.")


def measure_memory(backend: str, shape: str, threads: int) -> float:
    """Return the megabytes that packing adds to a fresh process that has imported the backend."""
    command = [sys.executable, __file__, "--memory", backend, shape, "--threads", str(threads)]
    megabytes = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if backend == "numba" and megabytes > MOST_MEGABYTES:
        print(f"numba used {megabytes:.0f} MB above its import; the bar is {MOST_MEGABYTES} MB.")
    return megabytes


def print_memory(backend: str, shape: str, threads: int) -> None:
    """Print how far the peak of this process rises over what it holds after the imports."""
    import importlib

    slots, ranks = (int(number) for number in shape.split("x"))
    importlib.import_module(f"equipoise.restarts.{backend}")
    weight = harness.replicas(harness.loads()[1], slots)
    imported = harness.peak_memory()
    implementation(backend, weight, ranks, threads)()
    print(harness.peak_memory() - imported)


if __name__ == "__main__":
    main()
