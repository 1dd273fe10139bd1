"""Experts that no rank holds: loaded from elsewhere, by the ranks that are to hold them, after the last round."""

from __future__ import annotations

import time

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import MigrationError, RanksLostError
from equipoise.migration.execute import Migration
from equipoise.migration.peers import Peers
from migration import processes


def load_into(weights, layer, slot, expert, loaded):
    """Restore as a checkpoint would, and note down what was asked for."""
    whole = processes.weights_of(eq.Placement(np.full((layer + 1, 1), expert), 1, expert + 1), 0, 1)[layer]
    for own, right in zip(weights[layer], whole, strict=True):
        own[slot] = right[0]
    loaded.append((layer, slot, expert))


def restore_alone(rank, current, target):
    schedule = eq.MigrationSchedule(current, target)
    weights, loaded = processes.weights_of(current, rank, schedule.slots_per_rank), []
    migration = Migration(schedule, weights, Peers(), restore=lambda *what: load_into(weights, *what, loaded))
    assert not migration.done
    placement = migration.run()
    processes.check_weights(weights, placement, rank)
    return placement.physical_to_logical.tolist(), loaded, migration.done


@pytest.mark.slow
def test_a_schedule_without_rounds_still_restores():
    current, target = eq.Placement([[0, -1], [1, -1]], 1, 2), eq.Placement([[0, 1], [1, 0]], 1, 2)
    told = processes.run(restore_alone, 1, current, target)
    assert told == [([[0, 1], [1, 0]], [(0, 1, 1), (1, 1, 0)], True)]


def pair():
    """Return a pair on three ranks: ranks 1 and 2 restore in layer 0, rank 2 in layer 1, which has a round before."""
    return (
        eq.Placement([[0, 1, -1, 0, 2, -1], [0, 1, 2, 1, 2, -1]], 3, 4),
        eq.Placement([[0, 1, 3, 0, 2, 3], [0, 1, 0, 1, 2, 3]], 3, 4),
    )


AFTER_THE_ROUND = [[0, 1, -1, 0, 2, -1], [0, 1, 0, 1, 2, -1]]


def restore_at_the_second_attempt(rank):
    current, target = pair()
    schedule = eq.MigrationSchedule(current, target)
    weights, loaded, attempts = processes.weights_of(current, rank, 2), [], []

    def restore(*what):
        attempts.append(what)
        if rank == 2 and len(attempts) == 1:
            raise OSError("no such file")
        load_into(weights, *what, loaded)

    migration = Migration(schedule, weights, Peers(), restore=restore, timeout=10.0)
    with pytest.raises(MigrationError) as raised:
        migration.run()
    assert migration.placement.physical_to_logical.tolist() == AFTER_THE_ROUND
    placement = migration.run()
    processes.check_weights(weights, placement, rank)
    return str(raised.value), placement.physical_to_logical.tolist()


@pytest.mark.slow
def test_a_restore_that_fails_is_told_on_every_rank_and_counts_nowhere():
    told = processes.run(restore_at_the_second_attempt, 3)
    sentence = "rank 2 could not restore expert 3 of layer 0: OSError: no such file. What is not restored has no slot."
    assert told == [(sentence, pair()[1].physical_to_logical.tolist())] * 3


def come_to_an_end(rank, how):
    """Let rank 2 die in its restore, or take longer than the others wait; return what each rank sees."""
    current, target = pair()
    weights = processes.weights_of(current, rank, 2)

    def restore(*what):
        if rank == 2 and how == "dies":
            processes.die()
        if rank == 2:
            time.sleep(3.0)
        load_into(weights, *what, [])

    migration = Migration(eq.MigrationSchedule(current, target), weights, Peers(), restore=restore, timeout=5.0)
    with pytest.raises(RanksLostError) as raised:
        migration.run()
    error = raised.value
    processes.check_weights(weights, error.placement, rank)
    return str(error).split(" (")[0], error.lost_ranks, error.placement.physical_to_logical.tolist()


@pytest.mark.slow
def test_a_rank_that_dies_while_it_restores_is_lost_and_what_was_not_told_does_not_count():
    told = processes.run(come_to_an_end, 3, "dies")
    assert told[2] is None
    assert told[0] == told[1]
    sentence, lost, table = told[0]
    assert sentence == (
        "ranks [2] are lost; the others stand where their placement says. Plan again with a new group of the ranks "
        "that are left and lost_ranks=[2]."
    )
    assert (lost, table) == ((2,), [[*row[:4], -1, -1] for row in AFTER_THE_ROUND])


@pytest.mark.slow
def test_a_rank_that_comes_too_late_is_not_called_lost():
    told = processes.run(come_to_an_end, 3, "is late")
    sentence = (
        "no rank is lost, but one came too late, so this migration is over; all ranks stand where their placement "
        "says. Plan again with a new group of the same ranks."
    )
    assert told == [(sentence, (), AFTER_THE_ROUND)] * 3


def restore_slowly(rank):
    """Restore on both ranks for longer than either waits for the other."""
    current, target = eq.Placement([[0, -1, 1, -1]], 2, 3), eq.Placement([[0, 2, 1, 2]], 2, 3)
    weights = processes.weights_of(current, rank, 2)

    def restore(*what):
        time.sleep(2.5 + 0.2 * rank)
        load_into(weights, *what, [])

    placement = Migration(eq.MigrationSchedule(current, target), weights, Peers(), restore=restore, timeout=5.0).run()
    processes.check_weights(weights, placement, rank)
    return placement == target


@pytest.mark.slow
def test_ranks_that_all_restore_for_long_do_not_give_up_on_each_other():
    assert processes.run(restore_slowly, 2) == [True, True]
