"""Real processes with a gloo group, for what is collective: started together, watched, and never left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist

import equipoise as eq

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "torch.distributed", "equipoise.migration.execute"])


def run(work, size, *arguments, seconds=60.0):
    """Call ``work(rank, *arguments)`` in ``size`` processes of one group; return what each returned.

    ``None`` stands for a process that was killed; one that outlives ``seconds`` fails the test.
    """
    with tempfile.TemporaryDirectory() as folder:
        answers = _context.Queue()
        processes = [
            _context.Process(target=_main, args=(work, rank, size, folder, answers, arguments), daemon=True)
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        until = time.monotonic() + seconds
        told = {}
        while len(told) < size and time.monotonic() < until:
            while not answers.empty():
                rank, value = answers.get()
                told[rank] = value
            if all(process.exitcode is not None for process in processes) and answers.empty():
                break
            time.sleep(0.01)
        late = [rank for rank, process in enumerate(processes) if process.exitcode is None and rank not in told]
        for process in processes:
            process.join(1.0)
            if process.exitcode is None:
                process.kill()
                process.join()
    assert not late, f"processes {late} still ran after {seconds} s"
    for value in told.values():
        if isinstance(value, str) and value.startswith("Traceback"):
            raise AssertionError(value)
    return [told.get(rank) for rank in range(size)]


def _main(work, rank, size, folder, answers, arguments):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    try:
        value = work(rank, *arguments)
    except BaseException:
        value = traceback.format_exc()
    answers.put((rank, value))
    answers.close()
    answers.join_thread()
    os._exit(0)  # a broken group would be waited for


def die():
    """Kill this process, as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


def weights_of(placement, rank, slots_per_rank):
    """Return tensors a layer whose rows tell which expert they are, and one whose rows hold nothing."""
    layers = placement.num_layers
    own = placement.physical_to_logical.reshape(layers, placement.num_ranks, -1)
    held = torch.full((layers, slots_per_rank), -1, dtype=torch.int64)
    if rank < placement.num_ranks:
        held[:, : own.shape[2]] = torch.from_numpy(own[:, rank].copy())
    return [
        [
            (row * 1000 + layer).float()[:, None, None] + torch.arange(6.0).view(2, 3) / 8,
            row.clone(),
            torch.empty(slots_per_rank, 0, 3),
        ]
        for layer, row in enumerate(held)
    ]


def check_weights(weights, placement, rank):
    """Insist that each slot of this rank holds the expert that the placement says."""
    own = placement.physical_to_logical.reshape(placement.num_layers, placement.num_ranks, -1)[:, rank]
    expected = weights_of(eq.Placement(own, 1, placement.num_logical_experts), 0, own.shape[1])
    for layer, (mine, right) in enumerate(zip(weights, expected, strict=True)):
        for slot, expert in enumerate(own[layer].tolist()):
            if expert >= 0:
                assert torch.equal(mine[0][slot], right[0][slot]), (layer, slot, expert, mine[1].tolist())
                assert mine[1][slot] == expert
