"""Balancers of several processes: they decide alike, and move real weights."""

from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.migration.peers import Peers
from equipoise.online import Balancer, FixedInterval
from equipoise.testing import recorded_load
from migration import processes

SIZE, SLOTS = 4, 5


def balance(rank):
    windows = recorded_load().tokens_per_expert
    start = eq.Placement(np.tile(np.arange(SIZE * SLOTS) % 16, (3, 1)), SIZE, 16)
    peers, cluster = Peers(), eq.Cluster(SIZE, SLOTS)
    balancers, weights = [], []
    for most in (6, 2):  # two in one process, over the same peers
        weights.append(processes.weights_of(start, rank, SLOTS))
        balancers.append(
            Balancer(
                start,
                cluster,
                policy=FixedInterval(),
                check_every=2,
                max_transfers=most,
                weights=weights[-1],
                peers=peers,
                rounds_per_step=1,
                timeout=20.0,
            )
        )
    share = np.random.default_rng(0).dirichlet(np.ones(SIZE), windows.shape)[..., rank]  # whose tokens they were
    placements = []
    for counts in np.concatenate([windows * share] * 2):
        for balancer, own in zip(balancers, weights, strict=True):
            balancer.record(counts)
            balancer.wait()
            balancer.step()
            processes.check_weights(own, balancer.placement, rank)
            placements.append(balancer.placement.physical_to_logical.tobytes())
    return placements, [balancer.counters.migrations for balancer in balancers]


@pytest.mark.slow
def test_all_ranks_route_alike_at_every_step_while_weights_move():
    told = processes.run(balance, SIZE, seconds=120)
    assert all(answer == told[0] for answer in told)
    assert min(told[0][1]) > 0
