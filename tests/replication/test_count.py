from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from equipoise.errors import InfeasibleError
from equipoise.replication import count_replicas
from equipoise.testing import every_share, random_load


def test_every_expert_has_a_replica_and_every_slot_is_given() -> None:
    for slots in (6, 7, 20):
        counts = count_replicas(random_load(16, 6, np.random.default_rng(0)), slots)
        assert counts.min() >= 1
        assert (counts.sum(axis=1) == slots).all()


@pytest.mark.parametrize(("experts", "slots"), [(1, 3), (2, 5), (3, 7), (4, 6)])
def test_no_other_counts_reach_a_smaller_largest_replica(experts: int, slots: int) -> None:
    load = random_load(64, experts, np.random.default_rng(1))
    largest = (load / count_replicas(load, slots)).max(axis=1)
    # One slot a rank: what the busiest rank carries is the largest replica.
    best = [(every_share(experts, slots, 1) @ row).max(axis=1).min() for row in load]
    np.testing.assert_allclose(largest, best, rtol=1e-11)


def test_one_more_slot_never_hurts() -> None:
    load = random_load(32, 5, np.random.default_rng(2))
    largest = [(load / count_replicas(load, slots)).max(axis=1) for slots in range(5, 15)]
    assert all((more <= fewer).all() for fewer, more in pairwise(largest))


def test_fewer_slots_than_experts_are_refused() -> None:
    with pytest.raises(InfeasibleError, match="2 slots cannot hold 3 logical experts"):
        count_replicas(np.ones((1, 3)), 2)
