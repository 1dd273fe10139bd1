"""What rearranging costs inside vLLM: each policy in turn, through vLLM's own state, in four processes.

    VLLM_PLUGINS=equipoise python vllm_moving.py LOADS.npy       run by benchmarks/moving.py

LOADS [windows, layers, experts] are served one after the other; after each vLLM rearranges. Prints, by window: slots
that change, slots that a rank receives from another, vLLM's balancedness of the window before and after (sum of the
mean rank loads / sum of the largest), seconds of planning, and of the whole rearrangement, both on rank 0.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.distributed
from vllm.distributed.eplb.eplb_state import _compute_eplb_load_stats

from engines.real.processes import run_ranks
from engines.real.vllm_machinery import Model, Rank, start
from equipoise.engines.warming import warm_up

RANKS, LOCAL = 4, 72


def balancedness(load: torch.Tensor, table: torch.Tensor) -> float:
    """Return vLLM's number for ``load`` [layers, experts] spread evenly over the replicas in ``table``."""
    replicas = torch.zeros_like(load).scatter_add_(1, table, torch.ones_like(table, dtype=load.dtype))
    ranks = torch.gather(load / replicas, 1, table).reshape(len(table), RANKS, -1).sum(-1)
    mean, most = _compute_eplb_load_stats(ranks)
    return float(mean / most)


class Timed:
    """A policy, and how long it took."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.seconds = policy, 0.0

    def rebalance_experts(self, *arguments: Any) -> torch.Tensor:
        started = time.perf_counter()
        table = self.policy.rebalance_experts(*arguments)
        self.seconds = time.perf_counter() - started
        return table


def serve(loads: np.ndarray) -> Any:
    """Return the rows of rank 0, with what all ranks received."""

    def body(rank: int) -> Any:
        start(rank)
        _, layers, experts = loads.shape
        model = Model("main", layers, experts, LOCAL)
        here = Rank(rank, model, window_size=1, step_interval=1)
        here.state.policy = timed = Timed(here.state.policy)
        rows = []
        for window in loads:
            before = here.table(model).clone()
            here.route(model, window)
            Rank.received.clear()
            torch.distributed.barrier()
            started = time.perf_counter()
            here.state.step()
            seconds = time.perf_counter() - started
            table, load = here.table(model), torch.from_numpy(window.astype(np.float64))
            assert not model.wrong(table, rank), "a weight is not where the map says"
            received = torch.tensor(Rank.received["slots"])
            torch.distributed.all_reduce(received)
            rows.append({
                "changed": int((table != before).sum()), "received": int(received),
                "before": balancedness(load, before), "after": balancedness(load, table),
                "planning": timed.seconds, "rearranging": seconds,
            })  # fmt: skip
        return rows

    return run_ranks(RANKS, body)[0]


if __name__ == "__main__":
    warm_up()
    print(json.dumps(serve(np.load(sys.argv[1]))))
