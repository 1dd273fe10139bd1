"""What a migration refuses before anything moves, in a group of one rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise.errors import InvalidInputError
from equipoise.migration.execute import Migration
from equipoise.migration.peers import Peers
from migration import processes

NAN = float("nan")


def schedule():
    return eq.MigrationSchedule(eq.Placement([[0, 1, 2, -1]], 1, 3), eq.Placement([[2, 0, 1, 1]], 1, 3))


def restoring():
    return eq.MigrationSchedule(eq.Placement([[0, -1]], 1, 2), eq.Placement([[0, 1]], 1, 2))


def weights(rows=4):
    return [[torch.arange(rows * 2.0).reshape(rows, 2)]]


REFUSED = {
    "schedule is a NoneType": lambda peers: Migration(None, weights(), peers),
    "peers is a NoneType": lambda peers: Migration(schedule(), weights(), None),
    "weights is a NoneType": lambda peers: Migration(schedule(), None, peers),
    "weights has 2 layers and the placement 1": lambda peers: Migration(schedule(), weights() * 2, peers),
    "weights of layer 0 is a Tensor": lambda peers: Migration(schedule(), [torch.zeros(4, 2)], peers),
    "weights of layer 0 is a int": lambda peers: Migration(schedule(), [3], peers),
    "weights of layer 0 holds no tensor": lambda peers: Migration(schedule(), [[]], peers),
    "tensor 0 of layer 0 is a ndarray": lambda peers: Migration(schedule(), [[np.zeros((4, 2))]], peers),
    "tensor 0 of layer 0 has shape \\(3, 2\\)": lambda peers: Migration(schedule(), weights(3), peers),
    "is not contiguous": lambda peers: Migration(schedule(), [[torch.zeros(2, 4).T]], peers),
    "no rank holds expert 1 of layer 0": lambda peers: Migration(restoring(), weights(2), peers),
    "restore is 3": lambda peers: Migration(restoring(), weights(2), peers, restore=3),
}
TIMEOUTS = (0, -1, NAN, float("inf"), 1e10, "x", None, True)
ROUNDS = (0, -1, 1.5, "x", True)


def refuse_all(rank):
    peers = Peers()
    for sentence, build in REFUSED.items():
        with pytest.raises(InvalidInputError, match=sentence):
            build(peers)
    for timeout in TIMEOUTS:
        with pytest.raises(InvalidInputError, match="it must be a number of seconds above 0, up to 1e"):
            Migration(schedule(), weights(), peers, timeout=timeout)
    migration = Migration(schedule(), weights(), peers)
    for rounds in ROUNDS:
        with pytest.raises(InvalidInputError, match="it must be a whole number of at least 1"):
            migration.step(rounds)
    assert migration.placement.physical_to_logical.tolist() == [[0, 1, 2, -1]]
    return migration.run().physical_to_logical.tolist()


@pytest.mark.slow
def test_what_cannot_be_is_refused_with_the_reason_and_nothing_moves():
    assert processes.run(refuse_all, 1) == [[[2, 0, 1, 1]]]
