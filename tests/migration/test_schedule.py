"""Rounds of transfers from one placement to another."""

from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import IndivisibleError, InvalidInputError, InvalidPlacementError
from equipoise.load import drift_load, generate_load
from equipoise.migration.steps import Steps
from equipoise.testing import replay


def random_pair(seed: int, ranks=None, most_ranks: int = 64):
    """Return two placements, nodes, lost ranks and limits: other widths, empty slots, experts that nobody holds."""
    rng = np.random.default_rng(seed)
    ranks = ranks or int(rng.choice([2, 3, 4, 6, 8, 16, 32, most_ranks]))
    slots, layers = int(rng.integers(1, 6)), int(rng.integers(1, 3))
    lost = sorted(set(rng.integers(0, ranks, int(rng.integers(0, 3))).tolist())) if rng.random() < 0.3 else []
    lost = lost[: ranks - 1]
    experts = int(rng.integers(1, (ranks - len(lost)) * slots + 1))
    old_ranks = max(1, ranks + int(rng.integers(-2, 3))) if rng.random() < 0.4 else ranks
    old_slots = max(1, slots + int(rng.integers(-1, 2))) if rng.random() < 0.3 else slots

    def table(num_ranks, slots, complete):
        out = np.full((layers, num_ranks, slots), -1)
        for row in out:
            alive = [r for r in range(num_ranks) if r not in lost]
            free = [(r, s) for r in alive for s in range(slots)]
            rng.shuffle(free)
            for k, (r, s) in enumerate(free):
                if k < experts and (complete or rng.random() < 0.98):
                    row[r, s] = k
                elif rng.random() < 0.9:
                    row[r, s] = rng.integers(experts)
        return eq.Placement(out.reshape(layers, -1), num_ranks, experts)

    current = table(old_ranks, old_slots, False)
    if lost:  # what a lost rank held before it was lost
        held = current.physical_to_logical.reshape(layers, old_ranks, -1).copy()
        held[:, [r for r in lost if r < old_ranks]] = rng.integers(0, experts)
        current = eq.Placement(held.reshape(layers, -1), old_ranks, experts)
    target = table(ranks, slots, True)
    wide = max(ranks, old_ranks)
    nodes = int(rng.choice([n for n in (1, 2, 4) if wide % n == 0]))
    limits = {"max_sends": int(rng.integers(1, 4)), "max_receives": int(rng.integers(1, 4))}
    return current, target, {"num_nodes": nodes, "lost_ranks": lost, **limits}


@pytest.mark.parametrize("part", range(10))
def test_every_schedule_reaches_its_target_and_loses_no_expert_at_any_cut(part):
    for seed in range(100 * part, 100 * part + 100):
        current, target, asked = random_pair(seed)
        schedule = eq.MigrationSchedule(current, target, **asked)
        replay(schedule)
        least = int(eq.count_transfers(current, target, asked["lost_ranks"]).sum())
        assert schedule.num_transfers + len(schedule.restores) <= least


def test_a_swap_takes_two_transfers_through_two_spares():
    schedule = eq.MigrationSchedule(eq.Placement([[0, 1]], 2, 2), eq.Placement([[1, 0]], 2, 2), bytes_per_expert=7)
    assert (schedule.num_transfers, schedule.num_bytes, schedule.num_rounds.tolist()) == (2, 14, [1])
    assert schedule.distance.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("size", [2, 3, 8, 32])
def test_a_circle_of_any_length_takes_one_round(size):
    experts = np.arange(size)
    schedule = eq.MigrationSchedule(
        eq.Placement([experts], size, size), eq.Placement([np.roll(experts, 1)], size, size)
    )
    replay(schedule)
    assert schedule.num_rounds.tolist() == [1]


def test_a_line_of_experts_that_move_up_takes_one_round():
    current, target = eq.Placement([[0, 1, 2, 3, -1]], 5, 4), eq.Placement([[0, 0, 1, 2, 3]], 5, 4)
    schedule = eq.MigrationSchedule(current, target)
    replay(schedule)
    assert schedule.num_rounds.tolist() == [1]


def test_a_plan_that_moves_little_takes_hardly_more_rounds_than_its_busiest_ranks_need():
    load = generate_load("deepseek-v3", seed=0).load[:12]
    cluster = eq.Cluster(32, 9)
    current = eq.solve(eq.PlacementProblem(load, cluster)).placement
    moved = eq.PlacementProblem(drift_load(load, 0.3, seed=1), cluster)
    schedule = eq.MigrationSchedule(current, eq.solve(moved, current=current, max_transfers=32).placement)
    replay(schedule)
    far = schedule.distance > 0
    ends = np.zeros((2, schedule.num_layers, 32), dtype=int)
    for end, slots in zip(ends, (schedule.source, schedule.destination), strict=True):
        np.add.at(end, (schedule.layer[far], schedule.rank_of(slots)[far]), 1)
    least = ends.max(axis=(0, 2))  # of a layer: its transfers are made before those of the next
    assert (schedule.num_rounds >= least).all()
    assert schedule.num_rounds.sum() <= 1.25 * least.sum()


def test_nothing_to_do_is_an_empty_schedule():
    same = eq.Placement([[0, 1, 1, 2]], 2, 3)
    schedule = eq.MigrationSchedule(same, same)
    assert (schedule.num_transfers, schedule.num_rounds.tolist(), schedule.seconds()) == (0, [0], 0.0)


def test_sources_are_local_first_then_of_the_same_node():
    current = eq.Placement([[0, -1, 0, -1, 1, -1, 0, -1]], 4, 2)
    target = eq.Placement([[0, 0, 0, 1, 1, 0, 0, 1]], 4, 2)
    schedule = eq.MigrationSchedule(current, target, num_nodes=2, max_sends=4, max_receives=4)
    of = dict(zip(schedule.destination.tolist(), schedule.source.tolist(), strict=True))
    assert (of[1], of[5], of[7]) == (0, 6, 4)


def test_a_slot_of_the_node_that_is_overwritten_in_the_same_round_sends_by_its_spare():
    current, target = eq.Placement([[1, 0, 2, 1, 2, 0, 1, 0]], 4, 3), eq.Placement([[1, 2, 2, 0, 2, 0, 1, 0]], 4, 3)
    schedule = eq.MigrationSchedule(current, target, num_nodes=2)
    replay(schedule)
    assert schedule.num_rounds.tolist() == [1]
    assert schedule.distance.tolist() == [0, 1, 1]


def free_in(schedule, layer, number):
    """Return what each slot holds before a round if its rank could have sent it in the round, else -1: [slots]."""
    steps = Steps(schedule)
    held = steps.start[layer]
    for earlier in range(number):
        held = steps.after(held, steps.of(layer, earlier), layer, earlier)
    moves, slots = steps.of(layer, number), schedule.num_slots
    sends = np.bincount([m.from_rank for m in moves if m.from_rank != m.to_rank], minlength=schedule.num_ranks)
    written = [m.destination for m in moves if m.destination < slots]
    stashed = [m.to_rank for m in moves if m.into_spare]
    spare_free = (held[slots:] < 0) & ~np.isin(np.arange(schedule.num_ranks), stashed)
    rank = np.arange(slots) // schedule.slots_per_rank
    may = (sends < schedule.max_sends)[rank] & (spare_free[rank] | ~np.isin(np.arange(slots), written))
    return np.where(may, held[:slots], -1)


def test_nothing_comes_from_another_node_while_a_rank_of_the_own_could_send_it():
    between_nodes = 0
    for seed in range(300):
        current, target, asked = random_pair(seed, most_ranks=16)
        schedule = eq.MigrationSchedule(current, target, **asked)
        width = schedule.num_ranks // schedule.num_nodes
        for k in np.flatnonzero(schedule.distance == 2):
            free = free_in(schedule, int(schedule.layer[k]), int(schedule.round[k]))
            node = int(schedule.rank_of(schedule.destination[k])) // width
            own = free.reshape(schedule.num_nodes, -1)[node]
            assert schedule.expert[k] not in own
            between_nodes += 1
    assert between_nodes > 100


def test_sends_are_spread_over_the_ranks_that_hold_the_expert():
    current = eq.Placement([[0, 0, 0, -1, -1, -1]], 6, 1)
    target = eq.Placement([[0] * 6], 6, 1)
    schedule = eq.MigrationSchedule(current, target)
    assert sorted(schedule.source.tolist()) == [0, 1, 2]
    assert schedule.num_rounds.tolist() == [1]


def test_what_no_rank_holds_is_left_to_be_restored():
    current, target = eq.Placement([[0, 1]], 2, 2), eq.Placement([[1, 0]], 2, 2)
    current = eq.Placement([[0, 1, 2, 2]], 2, 3)
    target = eq.Placement([[0, 1, -1, -1]], 2, 3)
    with pytest.raises(InvalidPlacementError, match="layer 0 of target has no slot for expert 2"):
        eq.MigrationSchedule(current, target)
    target = eq.Placement([[0, 2, -1, -1]], 2, 3)
    with pytest.raises(InvalidPlacementError, match="no slot for expert 1"):
        eq.MigrationSchedule(current, target)
    schedule = eq.MigrationSchedule(
        eq.Placement([[0, 1, 2, 2]], 2, 3), eq.Placement([[0, 1, 2, 0, -1, -1]], 3, 3), lost_ranks=[2]
    )
    replay(schedule)
    schedule = eq.MigrationSchedule(eq.Placement([[0, 1]], 1, 3), eq.Placement([[0, 1, 2]], 1, 3))
    assert schedule.restores.tolist() == [[0, 2, 2]]


def test_threads_change_nothing():
    current, target, asked = random_pair(7)
    one = eq.MigrationSchedule(current, target, **asked, threads=1)
    assert one.digest == eq.MigrationSchedule(current, target, **asked, threads=3).digest


def test_time_is_that_of_the_busiest_rank_of_each_round():
    current, target = eq.Placement([[0, 0, -1, 1]], 4, 2), eq.Placement([[0, 0, 0, 1]], 4, 2)
    schedule = eq.MigrationSchedule(current, target, num_nodes=2, bytes_per_expert=100)
    links = eq.LinkSpeeds(local=1e3, node=100.0, remote=10.0, latency=0.5)
    assert schedule.seconds(links) == 10.5


REFUSED = [
    ({"num_nodes": 3}, IndivisibleError, "2 ranks do not spread evenly over 3 nodes"),
    ({"lost_ranks": [2]}, InvalidInputError, "it must name ranks from 0 to 1"),
    ({"lost_ranks": 1}, InvalidInputError, "lost_ranks is 1; it must list ranks"),
    ({"lost_ranks": [0]}, InvalidPlacementError, "puts expert 0 on rank 0, which is lost"),
    ({"max_sends": 0}, InvalidInputError, "max_sends is 0"),
    ({"bytes_per_expert": -1}, InvalidInputError, "bytes_per_expert is -1"),
]


@pytest.mark.parametrize(("asked", "error", "sentence"), REFUSED)
def test_what_cannot_be_is_refused_with_the_reason(asked, error, sentence):
    placement = eq.Placement([[0, 1]], 2, 2)
    with pytest.raises(error, match=sentence):
        eq.MigrationSchedule(placement, placement, **asked)


@pytest.mark.parametrize("speed", [True, 0, -1.0, float("inf"), "fast", None])
def test_a_speed_that_is_none_is_refused(speed):
    with pytest.raises(InvalidInputError, match="it must be a finite number above 0"):
        eq.LinkSpeeds(local=speed)


def test_seconds_are_counted_with_link_speeds_only():
    placement = eq.Placement([[0, 1]], 2, 2)
    with pytest.raises(InvalidInputError, match="links is 3; pass a LinkSpeeds"):
        eq.MigrationSchedule(placement, placement).seconds(3)


def test_placements_of_two_models_are_refused():
    with pytest.raises(InvalidPlacementError, match="pass placements of the same model"):
        eq.MigrationSchedule(eq.Placement([[0, 1]], 2, 2), eq.Placement([[0, 1]], 2, 3))
