from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.dispatch.tickets import assign_ranks, list_slots

PLACEMENT = eq.Placement([[0, 1, 0, 1, 0, 2, 1, 3]], num_ranks=4, num_logical_experts=4)
SHARES = eq.Shares([[0.5, 0.75, 0.3, 0.25, 0.2, 1, 0, 1]], PLACEMENT)
KNUTH = 2654435769


@pytest.mark.parametrize(("width", "off"), [(32, 1 / 64), (64, 1 / 128)])
@pytest.mark.parametrize("step", [1, KNUTH % 64])
def test_whole_turns_of_tokens_are_spread_by_the_shares(width: int, off: float, step: int) -> None:
    slots, count = list_slots(SHARES, width, step=step)
    assert count[0].tolist() == [width, width, 1, 1]
    for expert in range(4):
        listed = slots[0, expert, : count[0, expert]]
        for slot in np.flatnonzero(PLACEMENT.physical_to_logical[0] == expert):
            assert abs((listed == slot).mean() - SHARES.values[0, slot]) <= off
    assert 6 not in slots, "a dormant replica is not listed"


def test_any_run_of_tokens_is_spread_alike() -> None:
    slots, _ = list_slots(SHARES, 64, step=KNUTH % 64)
    taken = slots[0, 0, (np.arange(256) * KNUTH % 2**32) % 64]
    for size in (8, 16, 32):
        for first in range(0, 200, 7):
            assert abs((taken[first : first + size] == 0).mean() - 0.5) <= 1.01 / size


def test_even_shares_are_the_published_lists() -> None:
    slots, count = list_slots(eq.Shares.even(PLACEMENT), 64)
    assert slots.tolist() == PLACEMENT.logical_to_physical.tolist()
    assert count.tolist() == PLACEMENT.replica_count.tolist()


def test_replicas_in_use_with_equal_shares_are_listed_once() -> None:
    slots, count = list_slots(eq.Shares([[0.5, 1, 0, 0, 0.5, 1, 0, 1]], PLACEMENT), 64)
    assert slots[0, :2].tolist() == [[0, 4], [1, -1]]
    assert count[0].tolist() == [2, 1, 1, 1]


def test_every_replica_is_listed_where_that_is_asked_for() -> None:
    slots, _ = list_slots(SHARES, 64, least=1)
    assert set(slots[slots >= 0].tolist()) == set(range(8))
    assert (slots[0, 1] == 6).sum() == 1


def test_random_shares_are_kept_to_half_a_ticket() -> None:
    rng = np.random.default_rng(0)
    placement = eq.Placement(np.tile(np.arange(12) % 3, (20, 1)), num_ranks=4, num_logical_experts=3)
    values = rng.dirichlet(np.ones(4), size=(20, 3)).transpose(0, 2, 1).reshape(20, 12)
    shares = eq.Shares(values, placement)
    slots, count = list_slots(shares, 64)
    found = np.stack([(slots == slot).sum(axis=2).max(axis=1) / 64 for slot in range(12)], axis=1)
    assert (count == 64).all()
    assert np.abs(found - values).max() <= 1 / 64


def test_an_expert_without_a_slot_has_an_empty_list() -> None:
    placement = eq.Placement([[0, 0, -1, -1]], num_ranks=2, num_logical_experts=2)
    slots, count = list_slots(eq.Shares([[0.75, 0.25, 0, 0]], placement), 4)
    assert count.tolist() == [[4, 0]]
    assert slots[0, 1].tolist() == [-1] * 4


def test_source_ranks_are_given_out_by_the_shares_own_replicas_first() -> None:
    chosen = assign_ranks(np.array([0.5, 0.3, 0.2, 0.0]), np.array([7, 2, 9, 4]), 10)
    assert np.bincount(chosen, minlength=4).tolist() == [5, 3, 2, 0]
    assert (chosen[7], chosen[2], chosen[9]) == (0, 1, 2)
