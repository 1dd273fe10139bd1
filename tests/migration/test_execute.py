"""Migrations between real processes."""

from __future__ import annotations

import time

import numpy as np
import pytest
from migration import processes
from migration.test_schedule import random_pair

import equipoise as eq
from equipoise.errors import DisagreementError, InvalidInputError, RanksLostError
from equipoise.migration.execute import Migration
from equipoise.migration.peers import Peers

SIZE = 4


def migrate_all(rank, pairs):
    peers = Peers()
    for current, target, asked in pairs:
        schedule = eq.MigrationSchedule(current, target, **asked)
        weights = processes.weights_of(current, rank, schedule.slots_per_rank)

        def restore(layer, slot, expert, weights=weights):
            weights[layer][0][slot] = processes.weights_of(eq.Placement([[expert]], 1, expert + 1), 0, 1)[0][0][0] + layer
            weights[layer][1][slot] = expert

        migration = Migration(schedule, weights, peers, timeout=20.0, restore=restore)
        while not migration.done:
            processes.check_weights(weights, migration.placement, rank)
            served = migration.placement.replica_count > 0
            assert served[schedule.current.replica_count > 0].all()
            migration.step(rounds=1)
        processes.check_weights(weights, migration.placement, rank)
        wide = migration.placement.physical_to_logical.reshape(target.num_layers, schedule.num_ranks, -1)
        own = target.physical_to_logical.reshape(target.num_layers, target.num_ranks, -1)
        assert (wide[:, : target.num_ranks, : target.slots_per_rank] == own).all()
    peers.close()
    return len(pairs)


def pairs_of_four_ranks(number):
    found, seed = [], 0
    while len(found) < number:
        current, target, asked = random_pair(seed, ranks=SIZE)
        if max(current.num_ranks, target.num_ranks) == SIZE and not asked["lost_ranks"]:
            found.append((current, target, asked))
        seed += 1
    return found


@pytest.mark.slow
def test_random_pairs_reach_their_target_between_four_processes():
    assert processes.run(migrate_all, SIZE, pairs_of_four_ranks(40), seconds=120) == [40] * SIZE


def swaps(layers=2, experts=12):
    """Return a pair on four ranks where everything is one of a kind and moves in circles, and a replica or two."""
    rng = np.random.default_rng(5)
    tables = [np.stack([np.append(rng.permutation(experts), rng.integers(0, experts, 4)) for _ in range(layers)]) for _ in "ab"]
    return tuple(eq.Placement(table, SIZE, experts) for table in tables)


def disagree(rank, how):
    current, target = swaps()
    if rank == 2 and how == "plan":
        target = current
    schedule = eq.MigrationSchedule(current, target)
    weights = processes.weights_of(current, rank, schedule.slots_per_rank)
    if rank == 2 and how == "weights":
        weights[1].pop()
    peers = Peers()
    try:
        Migration(schedule, weights, peers, timeout=10.0)
    except DisagreementError as error:
        processes.check_weights(weights, current, rank) if len(weights[1]) == 2 else None
        return str(error)
    return "agreed"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["plan", "weights"])
def test_ranks_that_disagree_all_say_so_and_nothing_moves(how):
    told = processes.run(disagree, SIZE, how)
    assert all("on ranks [0, 1, 3]" in text and "on ranks [2]" in text for text in told), told


def die_in_a_round(rank, victim, number, moment, timeout):
    current, target = swaps()
    schedule = eq.MigrationSchedule(current, target)
    weights = processes.weights_of(current, rank, schedule.slots_per_rank)
    peers = Peers()
    migration = Migration(schedule, weights, peers, timeout=timeout)
    if rank == victim:
        kill_at(migration, number, moment)
    begin = time.monotonic()
    try:
        migration.run()
    except RanksLostError as error:
        assert time.monotonic() - begin < timeout + 1
        assert error.placement is migration._over.placement
        processes.check_weights(weights, error.placement, rank)
        return error.lost_ranks, error.placement.physical_to_logical.tolist(), error.stranded
    return "done"


def kill_at(migration, number, moment):
    """Kill this process in round ``number``: before it sends, when it has sent, or when all have everything."""
    count = iter(range(10**6))
    whole = {"before": "_begin", "sent": "_begin", "committed": "_commit"}[moment]
    method = getattr(migration, whole)

    def wrapped(*arguments):
        if moment == "before" and next(count) == number:
            processes.die()
        method(*arguments)
        if moment != "before" and next(count) == number:
            processes.die()

    setattr(migration, whole, wrapped)


def check_survivors(told, victim, current):
    """Insist that survivors agree, and that whatever one of them had a copy of still has one."""
    survivors = [answer for rank, answer in enumerate(told) if rank != victim]
    assert told[victim] is None
    assert all(answer == survivors[0] for answer in survivors), survivors
    lost, table, stranded = survivors[0]
    assert lost == (victim,)
    after = np.array(table).reshape(len(table), SIZE, -1)
    assert (after[:, victim] == -1).all()
    before = current.physical_to_logical.reshape(len(table), SIZE, -1)
    kept = {(layer, expert) for layer, _, expert in stranded}
    for layer in range(len(table)):
        others = [r for r in range(SIZE) if r != victim]
        had = set(before[layer, others].ravel().tolist())
        has = set(after[layer, others].ravel().tolist()) | {expert for at, expert in kept if at == layer}
        # What moved to the victim only was copied there before its old slot was taken, and is gone with it.
        moved_away = had - has
        assert not moved_away or number_moved(layer, moved_away, victim), (layer, moved_away)


def number_moved(layer, experts, victim):
    current, target = swaps()
    own = target.physical_to_logical.reshape(target.num_layers, SIZE, -1)[layer]
    return all(e in own[victim] and e not in np.delete(own, victim, axis=0) for e in experts)


ROUNDS = int(eq.MigrationSchedule(*swaps()).num_rounds.sum())


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "sent", "committed"])
@pytest.mark.parametrize("number", range(ROUNDS))
def test_survivors_of_a_rank_killed_in_any_round_agree_and_lose_nothing_that_they_had(number, moment):
    if moment == "committed" and number == ROUNDS - 1:
        return
    victim = number % SIZE
    told = processes.run(die_in_a_round, SIZE, victim, number, moment, 10.0)
    check_survivors(told, victim, swaps()[0])


def stop_answering(rank, timeout):
    current, target = swaps()
    schedule = eq.MigrationSchedule(current, target)
    weights = processes.weights_of(current, rank, schedule.slots_per_rank)
    migration = Migration(schedule, weights, Peers(), timeout=timeout)
    if rank == 1:
        migration.step()
        import os
        import signal

        os.kill(os.getpid(), signal.SIGSTOP)
    begin = time.monotonic()
    try:
        migration.run()
    except RanksLostError as error:
        processes.check_weights(weights, error.placement, rank)
        return time.monotonic() - begin, error.lost_ranks, error.placement.physical_to_logical.tolist()
    return "done"


@pytest.mark.slow
def test_a_rank_that_stops_answering_is_given_up_within_the_timeout():
    try:
        told = processes.run(stop_answering, SIZE, 5.0, seconds=15.0)
    except AssertionError as error:
        assert "processes [1] still ran" in str(error)
        return
    survivors = [told[0], told[2], told[3]]
    assert all(answer[1:] == survivors[0][1:] and answer[0] < 6 for answer in survivors)
