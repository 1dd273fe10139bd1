"""Several ranks on one machine: processes that share a gloo group, and what became of each.

An engine takes seconds to import, so the script that calls ``run_ranks`` imports it once and the ranks are forks.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parents[1]  # where the scripts find this file
# To end what hangs, and for nothing else: a busy machine may be many times slower than an idle one.
LONGEST = 1500
# Once a rank has failed the others wait for it in vain.
GRACE = 20


def run_ranks(num_ranks: int, body: Callable[[int], Any]) -> list[Any]:
    """Call ``body(rank)`` in ``num_ranks`` processes of one gloo group; return their answers, in order of rank.

    Raises
    ------
    RuntimeError
        With the traceback of every rank that failed, and the number of every rank that hung or died.
    """
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes, ranks = [], []
        for rank in range(num_ranks):
            mine, theirs = fork.Pipe(duplex=False)
            process = fork.Process(target=_rank, args=(rank, num_ranks, f"file://{folder}/store", body, theirs))
            process.start()
            theirs.close()
            pipes.append(mine)
            ranks.append(process)
        words = _gather(pipes)
        for process in ranks:
            process.kill()
            process.join()
    failures = [f"rank {rank} {word['failed']}" for rank, word in enumerate(words) if "failed" in word]
    if failures:
        raise RuntimeError("\n".join(failures))
    return [word["answer"] for word in words]


def _gather(pipes: list[Connection]) -> list[dict[str, Any]]:
    """Return what each rank said, or that it hung or died."""
    words: list[dict[str, Any]] = [{"failed": "hung and was ended"} for _ in pipes]
    left = dict(zip(pipes, range(len(pipes)), strict=True))
    end = time.monotonic() + LONGEST
    while left and (ready := wait(list(left), timeout=max(0.0, end - time.monotonic()))):
        for pipe in ready:
            rank = left.pop(pipe)  # type: ignore[call-overload]
            try:
                words[rank] = pipe.recv()  # type: ignore[union-attr]
            except EOFError:
                words[rank] = {"failed": "died without a word"}
            if "failed" in words[rank]:
                end = min(end, time.monotonic() + GRACE)
    return words


def _rank(rank: int, num_ranks: int, store: str, body: Callable[[int], Any], pipe: Connection) -> None:
    import torch
    import torch.distributed

    try:
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=num_ranks, timeout=timedelta(seconds=LONGEST)
        )
        pipe.send({"answer": body(rank)})
    except BaseException:
        pipe.send({"failed": f"failed:\n{traceback.format_exc()}"})
    pipe.close()
    # No farewell of the group: it would wait for ranks that failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run_scenarios(scenarios: dict[str, Callable[[], Any]], names: list[str]) -> None:
    """Run these scenarios, or all, and print one line of JSON: the answer of each, or how it failed."""
    answers = {}
    for name in names or list(scenarios):
        try:
            answers[name] = {"answer": scenarios[name]()}
        except Exception:
            answers[name] = {"failed": traceback.format_exc()}
    print(json.dumps(answers))


def answers_of(script: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run one of the scripts beside this file and return its scenarios' answers."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("EQUIPOISE_VLLM", "EQUIPOISE_SGLANG"))}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env={**clean, **environment, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(TESTS)])},
        capture_output=True, text=True, timeout=4 * LONGEST, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}: {done.stdout[-3000:]}\n{done.stderr[-8000:]}"
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]
