"""How long a single layer can take: loads and shapes made to take long, each layer planned alone on one core.

    python benchmarks/adversarial.py [--layers 4] [--thorough 1] [--repeats 2] [--only times deadline]

times     processor time per layer, median to worst, and its parts: planning (``place``) and the proof (``certify``).
          By default a layer of at most 1,024 slots must take at most 25 ms, with effort thorough 1 s.
deadline  wall time beyond ``deadline=0.1`` of a problem with several layers, each of which could search for longer; at
          most 20 ms, on a machine that has a core to spare. What is left to do for layers that the search had not come
          to is what ``deadline=0`` takes, in processor time. Each plan is made again, without a clock, by the
          ``stop_after`` that it says.

Every plan is checked and recounted from its slots, and its gap taken to the bound that its certificate proves. The
least of some repeats counts, of which the first compiles. Appends to benchmarks/results/adversarial.jsonl.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import equipoise as eq
import harness
from equipoise.certificate import certify
from equipoise.how import How

Floats = NDArray[np.float64]
Random = np.random.Generator
Size = tuple[int, int]

SHAPES = (
    (16, 16, 2), (64, 8, 9), (128, 32, 32), (128, 128, 8), (256, 32, 8), (256, 32, 9), (256, 64, 5), (256, 64, 8),
    (256, 144, 2), (256, 144, 3), (256, 256, 4), (384, 48, 8), (384, 64, 16), (384, 128, 3), (384, 128, 6),
    (512, 4, 256), (512, 64, 16), (1000, 341, 3), (1024, 128, 8), (1024, 512, 2),
)  # fmt: skip
"""Experts, ranks, slots a rank; at most 1,024 slots."""


def two_valued(random: Random, size: Size) -> Floats:
    """Return loads of 1 and of some hundreds, in shares of its own for each layer."""
    share = random.choice([0.1, 0.3, 0.5], (size[0], 1))
    return np.where(random.random(size) < share, random.integers(2, 1000, (size[0], 1)), 1).astype(np.float64)


def one_giant(random: Random, size: Size) -> Floats:
    """Return small loads, and one that is a million."""
    load = random.integers(0, 9, size).astype(np.float64)
    load[:, random.integers(size[1])] = 1e6
    return load


def zipf(random: Random, size: Size) -> Floats:
    """Return loads that fall with the 1.2nd power of the rank."""
    row = np.rint(1e7 / np.arange(1, size[1] + 1) ** 1.2)
    return random.permuted(np.tile(row, (size[0], 1)), axis=1)


KINDS: dict[str, Callable[[Random, Size], Floats]] = {
    "Poisson 1": lambda random, size: random.poisson(1, size).astype(np.float64),
    "Poisson 10": lambda random, size: random.poisson(10, size).astype(np.float64),
    "Poisson 100": lambda random, size: random.poisson(100, size).astype(np.float64),
    "two values": two_valued,
    "sigma 0.8": lambda random, size: np.rint(random.lognormal(9, 0.8, size)),
    "sigma 2.6": lambda random, size: np.rint(random.lognormal(9, 2.6, size)),
    "half at zero": lambda random, size: np.rint(random.lognormal(9, 1, size)) * (random.random(size) < 0.5),
    "one giant": one_giant,
    "level": lambda random, size: np.rint(random.normal(1e6, 1e4, size)),
    "zipf 1.2": zipf,
    "powers of two": lambda random, size: 2.0 ** random.integers(-20, 20, size),
}
BARS = {"fast": 0.025, "balanced": 0.025, "thorough": 1.0}
DEADLINE, OVERRUN = 0.1, 0.02
SLOW = (
    ("two values", (384, 128, 6), "balanced"),
    ("Poisson 10", (256, 64, 8), "thorough"),
    ("Poisson 100", (384, 128, 6), "thorough"),
    ("Poisson 1", (512, 64, 16), "thorough"),
    ("powers of two", (256, 256, 4), "thorough"),
    ("sigma 2.6", (1000, 341, 3), "thorough"),
    ("sigma 0.8", (256, 144, 2), "thorough"),
)
"""Kinds, shapes and efforts that take long; those with three and two slots a rank, longest for such."""
SLOW_LAYERS = 16


def main() -> None:
    """Run the parts that the command line asks for."""
    parser = argparse.ArgumentParser(description="How long a single layer can take.")
    parser.add_argument("--layers", type=int, default=4, help="of each kind and shape, for efforts fast and balanced")
    parser.add_argument("--thorough", type=int, default=1, help="the same, for effort thorough")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=list(PARTS))
    args = parser.parse_args()
    print(f"one core; {harness.machine()['processor']}; {harness.commit()}")
    missed = False
    for part in args.only:
        print(f"\n{part}\n")
        rows = PARTS[part](args)
        harness.print_table(rows)
        harness.record("adversarial", rows, part=part, layers=args.layers, repeats=args.repeats)
        missed |= any(row["bar"] != "met" for row in rows)
    print("\nappended to benchmarks/results/adversarial.jsonl")
    sys.exit(missed)


def layers(number: int) -> Iterator[tuple[str, eq.PlacementProblem]]:
    """Yield layers, each a problem of its own with its name; the same in every run."""
    for experts, ranks, slots in SHAPES:
        for kind, make in KINDS.items():
            load = make(np.random.default_rng([experts, ranks, slots, list(KINDS).index(kind)]), (number, experts))
            for layer in range(number):
                name = f"{kind}, {experts} into {ranks} x {slots}, layer {layer}"
                yield name, eq.PlacementProblem(load[layer : layer + 1], eq.Cluster(ranks, slots))


def times(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the distribution of times and gaps by effort, and where the slowest are."""
    rows = []
    for effort, bar in BARS.items():
        how = How.of(effort=effort, threads=1)
        names, taken, gaps = [], [], []
        for name, problem in layers(args.thorough if effort == "thorough" else args.layers):
            least = [np.inf, np.inf]
            for _ in range(args.repeats):
                own, gap = time_layer(how, problem)
                least = own if sum(own) < sum(least) else least
            names.append(name)
            taken.append(least)
            gaps.append(gap)
        plan, proof = np.array(taken).T
        for what, own in (("plan ms", plan), ("proof ms", proof), ("both ms", plan + proof)):
            row = {"effort": effort, "layers": len(names), "what": what, **distribution(1e3 * own)}
            within = "met" if own.max() <= bar else f"> {1e3 * bar:.0f} ms in {(own > bar).sum()}"
            rows.append(row | {"bar": within, "worst in": names[int(own.argmax())]})
        gap_row = {"effort": effort, "layers": len(names), "what": "gap %", **distribution(100 * np.array(gaps))}
        rows.append(gap_row | {"bar": "met", "worst in": names[int(np.argmax(gaps))]})
    return rows


def time_layer(how: How, problem: eq.PlacementProblem) -> tuple[list[float], float]:
    """Return the processor seconds of planning and of the proof, which checks the plan too, and the gap."""
    begin = time.process_time()
    _, placement = how.place(problem)
    middle = time.process_time()
    certificate = certify(problem, placement)
    return [middle - begin, time.process_time() - middle], certificate.max_gap


def distribution(values: Floats) -> dict[str, float]:
    """Return median, ninth decile, last percentile and worst."""
    at = {"median": 50, "90 %": 90, "99 %": 99, "worst": 100}
    return {name: float(np.percentile(values, share)) for name, share in at.items()}


def deadline(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return how far planning overruns a deadline, at best of some repeats: other processes make it wait as well."""
    rows = []
    for kind, (experts, ranks, slots), effort in SLOW:
        load = KINDS[kind](np.random.default_rng(0), (SLOW_LAYERS, experts))
        problem = eq.PlacementProblem(load, eq.Cluster(ranks, slots))
        how = How.of(effort=effort, deadline=DEADLINE, threads=1)
        how.place(problem)  # compiles
        at_once, over = How.of(effort=effort, deadline=0.0, threads=1), np.inf
        least = np.inf
        for _ in range(1 + args.repeats):
            begin = time.perf_counter()
            found, placement = how.place(problem)
            over = min(over, time.perf_counter() - begin - DEADLINE)
            begin = time.process_time()
            at_once.place(problem)
            least = min(least, time.process_time() - begin)
        certify(problem, placement)
        again, same = How(found.strategy, threads=1).place(problem)
        if same != placement or again.strategy != found.strategy:
            sys.exit(f"{kind}, {experts} experts: stop_after makes another plan; nothing was recorded.")
        begin = time.perf_counter()
        How.of(effort=effort, threads=1).place(problem)
        rows.append(
            {
                "layers": SLOW_LAYERS,
                "kind": kind,
                "shape": f"{experts} into {ranks} x {slots}",
                "effort": effort,
                "without deadline s": time.perf_counter() - begin,
                "deadline 0 takes ms": round(1e3 * least, 2),
                "overrun ms": round(1e3 * over, 2),
                "bar": "met" if over <= OVERRUN else f"> {1e3 * OVERRUN:.0f} ms",
            }
        )
    return rows


PARTS = {"times": times, "deadline": deadline}

if __name__ == "__main__":
    main()
