"""Train a small model on the standard library, serve it from four processes, and change the kind of text.

    python examples/small_moe/run.py            # or: make example

Prints how much the busiest rank carries before and after each migration, and checks that what the model answers stays
the same to the last bit: before, between the rounds of a migration, and after.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from model import EXPERTS, LAYERS, LENGTH, Model, run_locally, train
from serve import Server
from text import KINDS, batches, corpus

import equipoise as eq

RANKS, SLOTS, BATCH = 4, 5, 16


def main() -> None:
    """Train, serve, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=200, help="training steps")
    parser.add_argument("--steps", type=int, default=60, help="steps of each kind of text")
    parser.add_argument("--trace", type=Path, help="keep the recorded load there, as .npz")
    options = parser.parse_args()
    begin = time.perf_counter()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # so small a model gains nothing from more, and loses much where cores are shared
    model = Model()
    print(f"training {LAYERS} layers of {EXPERTS} experts on the standard library's sources and documentation")
    train(model, [batches(corpus(kind), BATCH, LENGTH, 1) for kind in KINDS], options.train, print)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), f"{folder}/model.pt")
        print(f"serving from {RANKS} processes with {SLOTS} slots a layer each", flush=True)
        torch.multiprocessing.spawn(serve, (folder, options), RANKS)
    print(f"took {time.perf_counter() - begin:.0f} s")


def serve(rank: int, folder: str, options: argparse.Namespace) -> None:
    """Serve all kinds of text in turn, as one rank of four."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    model = Model()
    model.load_state_dict(torch.load(f"{folder}/model.pt"))
    probe = next(batches(corpus("code"), 4, LENGTH, 100 + rank))[:, :-1]
    with torch.no_grad():
        answer = model(probe, run_locally)  # by one process alone, with all experts
    in_order = np.tile(np.arange(RANKS * SLOTS) % EXPERTS, (LAYERS, 1))
    server = Server(model, eq.Placement(in_order, RANKS, EXPERTS), check_every=15)
    identical = {"before": 0, "during": 0, "after": 0}
    loads, lines = [], []
    for kind in KINDS:
        texts = batches(corpus(kind), BATCH, LENGTH, rank)
        shares, moved = [], server.balancer.counters.transfers
        for step in range(options.steps):
            counters = server.balancer.counters
            server.step(next(texts)[:, :-1])
            carried = [torch.zeros_like(server.carried) for _ in range(RANKS)]
            dist.all_gather(carried, server.carried)
            shares.append((torch.stack(carried).max(0).values / torch.stack(carried).sum(0)).mean().item())
            counts = server.counts.clone()
            dist.all_reduce(counts)
            loads.append(counts.numpy().astype(np.uint16))
            moving = server.balancer.is_migrating
            if moving or step % 10 == 0:
                if not torch.equal(server.forward(probe), answer):
                    raise SystemExit(f"rank {rank}: step {step} of {kind} gives another answer")
                identical["during" if moving else "after" if counters.migrations else "before"] += 1
        first, last = np.mean(shares[:10]), np.mean(shares[-10:])
        moved = server.balancer.counters.transfers - moved
        lines.append(f"  {kind:<14} {first:17.1%} {last:17.1%} {moved:15}")
    if rank == 0:
        print(f"  the busiest of {RANKS} ranks carries, on average over the layers (even is {1 / RANKS:.0%}):")
        print(f"  {'text':<14} {'at the beginning':>17} {'at the end':>17} {'experts moved':>15}")
        print("\n".join(lines))
        for decision in server.balancer.decisions:
            print(f"  step {decision.step:3}: {'migrate' if decision.migrate else 'wait'}; {decision.reason}")
        told = ", ".join(f"{number} {when}" for when, number in identical.items())
        print(f"  answers to the same text, compared bit for bit with one process alone: {told}; all the same")
        if options.trace is not None:
            windows = np.stack(loads).reshape(-1, 10, LAYERS, EXPERTS).sum(axis=1)
            np.savez_compressed(options.trace, counts=windows.astype(np.uint16))
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # without waiting for threads that only answer peers


if __name__ == "__main__":
    main()
