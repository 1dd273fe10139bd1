"""Packing on a CUDA device: every plan checked, then timed with device events.

    python benchmarks/gpu.py [--shapes 58x288x32 ...] [--restarts 256 2048 65536]

The triton backend runs on the device, and so do, up to the default restarts, the torch backend and, at the
defaults, the plain batched tensor program; the numba backend runs on this machine's processors. Two floors stand
beside the times: the bytes that any program must move once, and the steps of one candidate, which must follow one
another. Prints a table and appends it to benchmarks/results/gpu.jsonl.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import harness
from baselines import plain_torch
from equipoise.fixed_point import to_fixed_point
from equipoise.restarts import Settings, counter, counter_torch, numba
from equipoise.restarts import torch as torch_packing

SHAPES = ["58x288x32", "58x320x64", "58x288x144", "232x72x8"]
RESTARTS = [256, 2048, 16384, 65536]
SEED = 0


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description="Packing on a CUDA device.")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="rows x items x packs")
    parser.add_argument("--restarts", nargs="+", type=int, default=RESTARTS)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device, and torch finds none here. Run it where there is one.")
    device = torch.cuda.get_device_name()
    bandwidth = copy_bandwidth()
    print(f"{device}; a copy moves {bandwidth / 1e12:.2f} TB/s; numba on {harness.machine()['processor']}\n")
    rows = [
        row for shape in args.shapes for restarts in args.restarts
        for row in compare(shape, restarts, args.repeats, bandwidth)
    ]  # fmt: skip
    harness.print_table(rows)
    path = harness.record("gpu", rows, device=device, copy_bandwidth=bandwidth, torch=torch.__version__)
    print(f"\nappended to {path.relative_to(harness.ROOT)} at {harness.commit()}")


def compare(shape: str, restarts: int, repeats: int, bandwidth: float) -> list[dict[str, Any]]:
    """Check and time every implementation on one shape; plans that differ from numba's are not timed."""
    from equipoise.restarts import triton as triton_packing

    rows, items, packs = (int(number) for number in shape.split("x"))
    weight = weights(rows, items)
    fixed = to_fixed_point(weight, packs)
    chosen, on_device = Settings(restarts=restarts), torch.from_numpy(fixed).cuda()
    host = harness.time_call(lambda: numba.pack(fixed, packs, chosen, counter.row_key(fixed, SEED)), repeats=1)
    expected = host["result"]
    spread = imbalance(weight, expected[0], packs)

    def with_backend(backend: Any) -> Callable[[], Any]:
        return lambda: backend.pack(on_device, packs, chosen, counter_torch.row_key(on_device, SEED))

    timed: dict[str, tuple[float, float]] = {}
    backends = {"triton": triton_packing, "torch": torch_packing}
    if restarts > Settings().restarts:
        del backends["torch"]  # takes minutes there
    for name, backend in backends.items():
        plan = with_backend(backend)()
        if not all(np.array_equal(a.cpu().numpy(), b) for a, b in zip(plan, expected, strict=True)):
            sys.exit(f"{name} and numba plan {shape} with {restarts} restarts differently; nothing was recorded.")
        timed[name] = device_time(with_backend(backend), repeats if name == "triton" else 3), spread
    timed["numba"] = host["median"], spread
    if restarts == Settings().restarts:
        floats = torch.from_numpy(weight).cuda()
        plan = plain_torch.pack(floats, packs)
        found = imbalance(weight, plan[0].cpu().numpy(), packs)
        timed["plain torch"] = device_time(lambda: plain_torch.pack(floats, packs), 3), found

    one = Settings(restarts=1, refined=1, swaps=0)
    key = counter_torch.row_key(on_device[:1], SEED)
    steps = device_time(lambda: triton_packing.pack(on_device[:1], packs, one, key), repeats)
    moved = fixed.nbytes + 2 * 4 * fixed.size  # weights read, two int32 arrays written
    plain = timed.get("plain torch", (None, None))[0]
    return [
        {
            "shape": f"{rows} x {items} into {packs}",
            "restarts": restarts,
            "implementation": name,
            "ms": seconds * 1e3,
            "(max - min) / mean": found,
            "ratio to plain": plain / seconds if plain else None,
            "floor, bytes ms": moved / bandwidth * 1e3,
            "floor, steps ms": steps * 1e3,
        }
        for name, (seconds, found) in timed.items()
    ]


def weights(rows: int, items: int) -> NDArray[np.float64]:
    """Return replica loads: of the recorded model where the shape is one of its own, else generated."""
    if rows == 58 and items >= 256:
        return harness.replicas(harness.loads()[1], items)
    return np.rint(np.random.default_rng(0).lognormal(10.0, 0.7, size=(rows, items)))


def imbalance(weight: NDArray[np.float64], pack_index: NDArray[Any], packs: int) -> float:
    """Return (heaviest - lightest) / mean pack load, averaged over the rows."""
    load = np.stack([np.bincount(pack, own, packs) for pack, own in zip(pack_index, weight, strict=True)])
    return float((np.ptp(load, axis=1) / load.mean(axis=1)).mean())


def device_time(call: Callable[[], Any], repeats: int) -> float:
    """Return the median seconds of a call between two events on the device, warmed up."""
    for _ in range(2):
        call()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events) / 1e3


def copy_bandwidth() -> float:
    """Return the bytes per second that a large copy on the device reads and writes."""
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / device_time(lambda: target.copy_(source), 10)


if __name__ == "__main__":
    main()
