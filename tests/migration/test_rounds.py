"""Rounds: the native version makes the transfers of the plain one, in its order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from equipoise.migration import rounds, rounds_reference
from equipoise.migration.rounds import Links


def instance(seed: int) -> tuple[NDArray[Any], NDArray[Any], int, Links]:
    """Return arguments of ``schedule_layers``: a shuffle, a rotation, few changes; experts lost, empty slots."""
    random = np.random.default_rng(seed)
    per_node, nodes = int(random.integers(1, 5)), int(random.integers(1, 4))
    ranks, width = per_node * nodes, int(random.integers(1, 6))
    slots, experts = ranks * width, int(random.integers(1, ranks * width + 1))
    old = np.stack([random.permutation([*range(experts), *random.integers(0, experts, slots - experts)])] * 4)
    new = old.copy()
    new[0] = random.permutation(old[0])
    new[1] = np.roll(old[1], random.integers(slots))
    few = random.random(slots) < 0.3
    new[2, few] = random.permutation(new[2, few])
    old[3] = random.integers(-1, experts, slots)
    old[2:][random.random((2, slots)) < random.choice([0.0, 0.1, 0.4])] = -1
    free = random.permutation(slots)
    new[3] = random.integers(-1, experts, slots)
    new[3, free[:experts]] = np.arange(experts)
    links = Links(ranks, per_node, *(int(most) for most in random.integers(1, 4, 2)))
    return old.astype(np.int32), new.astype(np.int32), experts, links


def scheduled(version: Any, old: NDArray[Any], new: NDArray[Any], experts: int, links: Links) -> list[Any]:
    table, length = np.zeros((len(old), 2 * old.shape[1], 4), dtype=np.int32), np.zeros(len(old), dtype=np.int64)
    restore = np.zeros(old.shape, dtype=np.bool_)
    version.schedule_layers(old, new, experts, links, table, length, restore)
    return [(rows[:number].tolist(), lost) for rows, number, lost in zip(table, length, restore.tolist(), strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_both_versions_make_the_same_transfers_in_the_same_order(seed: int) -> None:
    asked = instance(seed)
    assert scheduled(rounds, *asked) == scheduled(rounds_reference, *asked)


@pytest.mark.parametrize("happens", ["a spare is filled", "a rank sends by its spare", "a circle waits", "one is lost"])
def test_all_that_can_happen_in_a_round_is_compared(happens: str) -> None:
    seen = 0
    for seed in range(60):
        old, _, _, _ = asked = instance(seed)
        for moves, lost in scheduled(rounds, *asked):
            spare = old.shape[1]
            into = {(number, x) for number, _, x, _ in moves if x >= spare}
            seen += {
                "a spare is filled": len(into) > 0,
                "a rank sends by its spare": any(y >= spare and (number, y) in into for number, y, _, _ in moves),
                "a circle waits": any(y >= spare and (number, y) not in into for number, y, _, _ in moves),
                "one is lost": any(lost),
            }[happens]
    assert seen >= 10
