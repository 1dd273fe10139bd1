"""Experts that no rank holds, and a balancer that has weights: it has them loaded, or says why it cannot."""

from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import InvalidInputError
from equipoise.migration.peers import Peers
from equipoise.online import Balancer, Threshold
from migration import processes
from migration.test_restore import load_into

IN_FORCE = eq.Placement([[0, 2, 2, 0]], 1, 3)  # nobody holds expert 1


def check_once(balancer):
    """Let one plan be made and weighed, and weights move if they do."""
    balancer.record([[5, 3, 2]])
    balancer.step()
    balancer.wait()
    balancer.step()
    while balancer.is_migrating:
        balancer.step()


def recover(rank):
    weights, loaded, broken = processes.weights_of(IN_FORCE, 0, 4), [], True

    def restore(*what):
        if broken:
            raise OSError("no such file")
        load_into(weights, *what, loaded)

    balancer = Balancer(IN_FORCE, eq.Cluster(1, 4), policy=Threshold(0.1), check_every=1, weights=weights,
                        peers=Peers())  # fmt: skip
    told = []
    for attempt in ("no restore", "broken restore", "restore"):
        if attempt == "broken restore":
            balancer.resume(Peers(), weights, [], restore)
        broken = attempt == "broken restore"
        for _ in range(3):
            check_once(balancer)
            if attempt == "restore":
                break
        counters = balancer.counters
        told.append((counters.failures, counters.migrations, balancer.decisions[-1].reason))
        processes.check_weights(weights, balancer.placement, rank)
    with pytest.raises(InvalidInputError, match="the process group has 1"):
        Balancer(eq.Placement([[0, 1]], 2, 2), eq.Cluster(2, 1), weights=[[weights[0][1][:1]]], peers=Peers())
    return told, sorted(balancer.placement.physical_to_logical[0].tolist()), loaded


@pytest.mark.slow
def test_a_check_without_restore_fails_with_the_reason_and_one_with_it_recovers_the_expert():
    ((without, broken, restored), held, loaded) = processes.run(recover, 1)[0]
    assert without[:2] == (3, 0)
    assert without[2].startswith("no rank holds expert 1 of layer 0, so it cannot be moved; pass restore=")
    assert broken[0] == 6
    assert broken[2].startswith("rank 0 could not restore expert 1 of layer 0: OSError: no such file")
    assert restored[0] == 6
    assert restored[2] == "some experts have no slot"
    assert {0, 1, 2} <= set(held)
    assert [(layer, expert) for layer, _, expert in loaded] == [(0, 1)]


def go_on_without_the_only_holder(rank):
    """Serve on three ranks what four served, the last of which alone had experts 12 to 15."""
    table = np.tile([*range(12), *range(6), 12, 13, 14, 15, 0, 1], (3, 1))
    start, peers = eq.Placement(table, 4, 16), Peers()
    weights, loaded = processes.weights_of(start, rank, 6), []
    balancer = Balancer(start, eq.Cluster(4, 6), policy=Threshold(0.1), check_every=1, rounds_per_step=1)
    balancer.resume(peers, weights, [3], lambda *what: load_into(weights, *what, loaded))
    balancer.record(np.arange(48.0).reshape(3, 16))
    balancer.step()
    balancer.wait()
    balancer.step()
    while balancer.is_migrating:
        balancer.step()
        processes.check_weights(weights, balancer.placement, rank)
    assert all(slot < 6 for _, slot, _ in loaded)
    everyone = peers.gather([(layer, expert) for layer, _, expert in loaded])
    return balancer.placement.physical_to_logical.tolist(), {pair for pairs in everyone for pair in pairs}


@pytest.mark.slow
def test_experts_that_only_a_lost_rank_held_are_loaded_by_those_that_are_left():
    told = processes.run(go_on_without_the_only_holder, 3)
    assert told[0] == told[1] == told[2]
    table, loaded = told[0]
    assert all(set(row[:18]) - {-1} == set(range(16)) and set(row[18:]) == {-1} for row in table)
    assert loaded == {(layer, expert) for layer in range(3) for expert in range(12, 16)}
