"""What all benchmarks share: loads to plan on, the machine and commit beside each number, tables, results."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RECORDINGS",
    "commit",
    "loads",
    "machine",
    "peak_memory",
    "print_table",
    "record",
    "replicas",
    "time_call",
    "time_together",
]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHARED_DATA = "EQUIPOISE_SHARED_DATA"
RECORDINGS = ("deepseek_v3_decode_in1000out1000.json", "deepseek_v3_prefill_in1024.json")


def loads(layers: int = 58, experts: int = 256, recording: str = RECORDINGS[0]) -> tuple[str, NDArray[np.float64]]:
    """Return (where it comes from, load [layers, experts]): the recording if it is there and fits, else generated."""
    folders = [Path(os.environ[SHARED_DATA])] if SHARED_DATA in os.environ else [_checkout() / ".." / "shared" / "data"]
    for folder in folders:
        if (folder / recording).exists():
            load = np.array(json.loads((folder / recording).read_text())["logical_count"], dtype=np.float64)
            load = load[load.sum(axis=1) > 0]
            if load.shape == (layers, experts):
                return f"recorded ({recording})", load
    random = np.random.default_rng(RECORDINGS.index(recording))
    return "generated (lognormal, sigma 0.7)", np.rint(random.lognormal(10.0, 0.7, size=(layers, experts)))


def replicas(load: NDArray[np.float64], num_slots: int) -> NDArray[np.float64]:
    """Return the load of each replica [layers, num_slots], spare slots given to the largest load per replica."""
    from baselines.greedy_numpy import replicate_experts

    phy2log, _, count = replicate_experts(load, num_slots)
    return np.take_along_axis(load / count, phy2log, axis=1)


def time_call(call: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Call once for the first time, then ``repeats`` times.

    Returns seconds (first; best and median of the repeats, or of the first where there are none), the last result,
    and ``others``: the share of all processors that other processes took during the repeats, None where unknown.
    """
    start = time.perf_counter()
    result = call()
    first = time.perf_counter() - start
    steady = []
    before = _busy()
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        steady.append(time.perf_counter() - start)
    others = _share_of_others(before, _busy(), sum(steady)) if steady else None
    steady = steady or [first]
    return {
        "first": first,
        "best": min(steady),
        "median": statistics.median(steady),
        "result": result,
        "others": others,
    }


def time_together(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Time several calls in turn, A B A B, so that a busy spell of the machine falls on all of them.

    Returns seconds (first, best, median) for each name. The first call of each is not among the others.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {
        name: {"first": own[0], "best": min(own[1:]), "median": statistics.median(own[1:])}
        for name, own in times.items()
    }


def peak_memory() -> float:
    """Return the most megabytes that this process has held at once.

    Not ``ru_maxrss``: a process starts with that of the one that started it, and so hides its own.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _busy() -> tuple[float, float] | None:
    """Return the processor seconds that (all processes, this process) have used, or None if not told."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, irq, softirq = (int(word) for word in stat.read_text().split("\n")[0].split()[1:8])
    own = os.times()
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK"), own.user + own.system


def _share_of_others(
    before: tuple[float, float] | None, after: tuple[float, float] | None, seconds: float
) -> float | None:
    if before is None or after is None:
        return None
    others = (after[0] - before[0]) - (after[1] - before[1])
    return max(0.0, others / (seconds * (os.cpu_count() or 1)))


def machine() -> dict[str, Any]:
    """Describe the machine that the numbers were taken on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = named[0].split(":")[1].strip() if named else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def commit() -> str:
    """Return the commit of the checkout, marked if files differ from it."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        return name + (
            "+changes"
            if _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
            else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def record(name: str, rows: Sequence[dict[str, Any]], **context: Any) -> Path:
    """Append the rows of one run, with machine, commit and date, to ``benchmarks/results/<name>.jsonl``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    run = {"date": now, "commit": commit(), "machine": machine(), **context, "rows": list(rows)}
    with path.open("a") as file:
        file.write(json.dumps(run) + "\n")
    return path


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of equal keys, text to the left and numbers to the right."""
    columns = list(rows[0])
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    numeric = [all(isinstance(row[column], int | float | None) for row in rows) for column in columns]

    def show(line: Sequence[str]) -> None:
        parts = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(line, widths, numeric, strict=True))
        print("  ".join(parts).rstrip())

    show(columns)
    show(["-" * width for width in widths])
    for line in cells:
        show(line)
    sys.stdout.flush()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _checkout() -> Path:
    """Return the main checkout, whose neighbour the shared data is, also from another working tree of it."""
    try:
        return (ROOT / _git("rev-parse", "--git-common-dir")).resolve().parent
    except (OSError, subprocess.CalledProcessError):
        return ROOT
