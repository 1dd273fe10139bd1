"""Migrations between real processes."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import DisagreementError, RanksLostError
from equipoise.migration.execute import Migration
from equipoise.migration.peers import Peers
from migration import processes
from migration.test_schedule import random_pair

SIZE, TIMEOUT = 4, 5.0


def migrate_all(rank, pairs):
    peers = Peers()
    for current, target, asked in pairs:
        schedule = eq.MigrationSchedule(current, target, **asked)
        weights = processes.weights_of(current, rank, schedule.slots_per_rank)

        def restore(layer, slot, expert, weights=weights):
            weights[layer][0][slot] = (
                processes.weights_of(eq.Placement([[expert]], 1, expert + 1), 0, 1)[0][0][0] + layer
            )
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
    tables = [
        np.stack([np.append(rng.permutation(experts), rng.integers(0, experts, 4)) for _ in range(layers)])
        for _ in "ab"
    ]
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


def die_in_a_round(rank, victim, number, moment):
    current, target = swaps()
    schedule = eq.MigrationSchedule(current, target)
    weights = processes.weights_of(current, rank, schedule.slots_per_rank)
    peers = Peers()
    migration = Migration(schedule, weights, peers, timeout=TIMEOUT)
    if rank == victim:
        kill_at(migration, number, moment)
    begin = time.monotonic()
    try:
        migration.run()
    except RanksLostError as error:
        took = time.monotonic() - begin
        processes.check_weights(weights, error.placement, rank)
        return took, (error.lost_ranks, error.placement.physical_to_logical.tolist(), error.stranded)
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


def held_by_others(schedule, rounds, victim):
    """Return for each layer the experts that others than the victim hold, in slots or spares, after some rounds."""
    table = schedule.current.physical_to_logical.astype(int)
    held = np.concatenate([table, np.full((len(table), SIZE), -1)], axis=1)
    first = np.cumsum(schedule.num_rounds) - schedule.num_rounds
    for layer, number, destination, expert in zip(
        schedule.layer, schedule.round, schedule.destination, schedule.expert, strict=True
    ):
        if first[layer] + number < rounds:
            held[layer, destination] = expert
    for layer, spare in np.ndindex(len(held), SIZE):  # what no later round reads is no longer kept there
        later = (schedule.layer == layer) & (first[layer] + schedule.round >= rounds)
        read = schedule.round[later & (schedule.source == schedule.num_slots + spare)].min(initial=10**6)
        filled = schedule.round[later & (schedule.destination == schedule.num_slots + spare)].min(initial=10**6)
        if filled <= read:
            held[layer, schedule.num_slots + spare] = -1
    others = schedule.rank_of(np.arange(held.shape[1])) != victim
    return [set(row[others].tolist()) - {-1} for row in held]


def check_survivors(told, victim, schedule, rounds):
    """Insist that survivors agree, and that whatever one of them had a copy of still has one.

    ``rounds`` are those that may have been made when the victim died.
    """
    survivors = [answer for rank, answer in enumerate(told) if rank != victim]
    assert told[victim] is None
    assert all(took < TIMEOUT + 1 for took, _ in survivors), survivors
    assert all(answer == survivors[0][1] for _, answer in survivors), survivors
    lost, table, stranded = survivors[0][1]
    assert lost == (victim,)
    after = np.array(table).reshape(len(table), SIZE, -1)
    assert (after[:, victim] == -1).all()
    has = [set(row.ravel().tolist()) | {e for at, _, e in stranded if at == layer} for layer, row in enumerate(after)]
    made = [held_by_others(schedule, number, victim) for number in rounds]
    assert any(all(had <= now for had, now in zip(cut, has, strict=True)) for cut in made), (made, has)
    slots = (SIZE - 1) * schedule.slots_per_rank
    for layer, _, expert in stranded:  # only where no slot could be had
        assert len(set(after[layer].ravel().tolist()) - {-1}) == slots, (layer, expert)


ROUNDS = int(eq.MigrationSchedule(*swaps()).num_rounds.sum())


# Every round, and for some of them other moments than the one in which most is on its way.
KILLS = [(number, "sent") for number in range(ROUNDS)]
KILLS += [(number, "before") for number in range(0, ROUNDS, 3)] + [
    (number, "committed") for number in range(1, ROUNDS - 1, 4)
]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "moment"), KILLS)
def test_survivors_of_a_rank_killed_in_any_round_agree_and_lose_nothing_that_they_had(number, moment):
    victim = number % SIZE
    told = processes.run(die_in_a_round, SIZE, victim, number, moment)
    made = [number, number + 1] if moment == "committed" else [number]
    check_survivors(told, victim, eq.MigrationSchedule(*swaps()), made)


def stop_answering(rank):
    """Let rank 1 stop, as a process does whose machine hangs, and be killed by rank 0 at the end."""
    current, target = swaps()
    schedule = eq.MigrationSchedule(current, target)
    weights = processes.weights_of(current, rank, schedule.slots_per_rank)
    peers = Peers()
    pid = peers.gather(os.getpid())[1]
    migration = Migration(schedule, weights, peers, timeout=TIMEOUT)
    migration.step()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    begin = time.monotonic()
    try:
        migration.run()
    except RanksLostError as error:
        took = time.monotonic() - begin
        processes.check_weights(weights, error.placement, rank)
        if rank == 0:
            os.kill(pid, signal.SIGKILL)
        return took, (error.lost_ranks, error.placement.physical_to_logical.tolist(), error.stranded)
    return "done"


@pytest.mark.slow
def test_a_rank_that_stops_answering_is_given_up_within_the_timeout():
    schedule = eq.MigrationSchedule(*swaps())
    told = processes.run(stop_answering, SIZE, seconds=30.0)
    check_survivors(told, 1, schedule, [int(schedule.num_rounds[0])])


def die_at_random(rank, victim, seed):
    """Move back and forth without end until a rank dies, whenever that is."""
    there, back = swaps()
    peers, ways = Peers(), [(there, back), (back, there)]
    weights = processes.weights_of(there, rank, there.slots_per_rank)
    if rank == victim:
        threading.Timer(0.3 + np.random.default_rng(seed).random(), processes.die).start()
    try:
        for number in range(10**6):
            Migration(eq.MigrationSchedule(*ways[number % 2]), weights, peers, timeout=TIMEOUT).run()
    except RanksLostError as error:
        processes.check_weights(weights, error.placement, rank)
        return error.lost_ranks, error.placement.physical_to_logical.tolist(), error.stranded


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_survivors_of_a_rank_killed_at_any_moment_agree(seed):
    told = processes.run(die_at_random, SIZE, seed, seed)
    survivors = [answer for rank, answer in enumerate(told) if rank != seed]
    assert told[seed] is None
    assert all(answer == survivors[0] for answer in survivors), survivors
    assert survivors[0][0] == (seed,)
