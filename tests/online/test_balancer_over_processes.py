"""Balancers of several processes: they decide alike, and move real weights."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import DisagreementError, InvalidInputError, RanksLostError
from equipoise.migration.peers import Peers
from equipoise.online import Balancer, FixedInterval, SlidingSum
from equipoise.testing import recorded_load
from migration import processes

SIZE, SLOTS = 4, 5
ROOMY = 6  # slots a rank that are enough for all 16 experts on one rank less


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


def plan_otherwise(rank):
    """Let one rank plan with another limit than the others; return what each sees."""
    counts = recorded_load().tokens_per_expert[0]
    start = eq.Placement(np.tile(np.arange(2 * 10) % 16, (3, 1)), 2, 16)
    weights = processes.weights_of(start, rank, 10)
    balancer = Balancer(
        start,
        eq.Cluster(2, 10),
        policy=FixedInterval(),
        check_every=1,
        max_transfers=2 + 4 * rank,
        weights=weights,
        peers=Peers(),
        timeout=20.0,
    )
    balancer.record(counts)
    balancer.step()
    balancer.wait()
    with pytest.raises(DisagreementError):
        balancer.step()
    processes.check_weights(weights, start, rank)
    counters = balancer.counters
    return balancer.placement is start, counters.migrations, counters.failures, balancer.decisions[-1].reason[:36]


@pytest.mark.slow
def test_ranks_that_plan_otherwise_all_record_a_failure_and_move_nothing():
    assert processes.run(plan_otherwise, 2) == [(True, 0, 1, "the ranks disagree on the migration,")] * 2


def bring_another_window(rank, returned):
    """Let the window of rank 1 return something else once; return what each rank sees, then and afterwards."""

    class Odd(SlidingSum):
        odd = rank == 1

        def tokens_per_step(self):
            return returned() if self.odd else super().tokens_per_step()

    counts = recorded_load().tokens_per_expert[0]
    start = eq.Placement(np.tile(np.arange(SIZE * SLOTS) % 16, (3, 1)), SIZE, 16)
    window = Odd(1)
    balancer = Balancer(
        start,
        eq.Cluster(SIZE, SLOTS),
        policy=FixedInterval(),
        check_every=1,
        window=window,
        peers=Peers(),
        timeout=20.0,
    )
    balancer.record(counts)
    with pytest.raises(InvalidInputError) as raised:
        balancer.step()
    failed = balancer.counters.failures, balancer.placement is start
    window.odd = False
    balancer.record(counts)
    balancer.step()  # nothing was left half done: the ranks are together still
    balancer.wait()
    balancer.step()
    return str(raised.value), failed, balancer.placement.physical_to_logical.tolist()


def raise_a_bug():
    raise ZeroDivisionError("a bug")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (partial(np.ones, (3, 8)), "rank 1: the window returns shape (3, 8); it must be (3, 16), layers and experts."),
        (partial(np.ones, 48), "rank 1: the window returns shape (48,); it must be (3, 16), layers and experts."),
        (partial(str, "x"), "rank 1: what the window returns holds <U1 values; it must hold integers or floats."),
        (raise_a_bug, "rank 1: ZeroDivisionError('a bug')"),
    ],
)
def test_a_window_of_another_shape_on_one_rank_is_refused_on_all_before_anything_is_summed(returned, sentence):
    told = processes.run(bring_another_window, SIZE, returned)
    assert all(answer == told[0] for answer in told)
    assert told[0][:2] == (f"{sentence} Nothing was added up.", (1, True))


def lose_a_rank(rank, moment):
    """Let rank 2 die while nothing moves, and the others go on without it; return what each saw."""
    counts = recorded_load().tokens_per_expert[0]
    start = eq.Placement(np.tile(np.arange(SIZE * ROOMY) % 16, (3, 1)), SIZE, 16)
    balancer = Balancer(
        start, eq.Cluster(SIZE, ROOMY), policy=FixedInterval(), check_every=4, peers=Peers(), timeout=10.0
    )
    lost = None
    for step in range(8):
        if rank == 2 and step == moment:
            processes.die()
        begin = time.monotonic()
        balancer.record(counts)
        balancer.wait()
        try:
            balancer.step()
        except RanksLostError as error:
            lost = lost or (step, error.lost_ranks, str(error).split(";")[0])
            took = time.monotonic() - begin
    with pytest.raises(RanksLostError) as again:
        balancer.step()
    assert again.value.placement is balancer.placement
    assert took < 10.0
    in_force = balancer.placement.physical_to_logical.tolist()
    # The old group is of no use; a new one is made by whoever starts processes, and here of this process alone.
    balancer.resume(None, None, lost[1])
    balancer.step()
    balancer.wait()
    balancer.step()
    after = balancer.placement.physical_to_logical.reshape(3, SIZE, ROOMY)
    return lost, in_force, np.unique(after[:, 2]).tolist(), int(balancer.placement.replica_count.min())


# With a check every 4 steps, what all ranks do together first is to sum up counts at step 3, then to see who is ready.
@pytest.mark.slow
@pytest.mark.parametrize(("moment", "seen_at"), [(1, 3), (3, 3), (4, 4)])
def test_a_rank_that_dies_while_nothing_moves_is_told_and_the_placement_stays(moment, seen_at):
    told = processes.run(lose_a_rank, SIZE, moment, seconds=60)
    assert told[2] is None
    start = np.tile(np.arange(SIZE * ROOMY) % 16, (3, 1)).tolist()
    for answer in (told[0], told[1], told[3]):
        assert answer == ((seen_at, (2,), "ranks [2] are lost"), start, [-1], 1)
