"""Slots and ranks after a new plan: what stays must not move."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.errors import IndivisibleError, InvalidPlacementError
from equipoise.migration import keep_slots, match_ranks


@st.composite
def two_placements(draw):
    layers, ranks, slots, experts = (draw(st.integers(1, n)) for n in (3, 4, 4, 7))
    old_ranks = draw(st.integers(0, 5))

    def table(num_ranks, lowest):
        cells = st.integers(lowest, experts - 1)
        flat = draw(st.lists(cells, min_size=layers * num_ranks * slots, max_size=layers * num_ranks * slots))
        return np.array(flat, dtype=np.int64).reshape(layers, num_ranks * slots)

    return table(ranks, 0), table(old_ranks, -1), ranks


def kept_at_best(new, old):
    """Return how many slots of one rank can stay: the size of the intersection as multisets."""
    new, old = new.tolist(), old.tolist()
    return sum(min(new.count(e), old.count(e)) for e in set(new))


@settings(max_examples=200)
@given(two_placements())
def test_every_rank_keeps_its_experts_and_every_slot_that_can_stay_stays(case):
    new, old, ranks = case
    kept = keep_slots(new, old, ranks)
    slots = new.shape[1] // ranks
    for layer, rank in itertools.product(range(len(new)), range(ranks)):
        own = slice(rank * slots, (rank + 1) * slots)
        here, there = kept[layer, own], old[layer, own]
        assert sorted(here) == sorted(new[layer, own])
        stayed = sum(a == b for a, b in zip(here.tolist(), there.tolist(), strict=False))
        assert stayed == kept_at_best(new[layer, own], there)


def test_an_expert_that_comes_back_to_its_rank_alone_keeps_its_old_slot():
    assert keep_slots([[5, 6, 2]], [[0, 1, 2]], 1).tolist() == [[5, 6, 2]]
    assert keep_slots([[2, 5, 6]], [[0, 1, 2]], 1).tolist() == [[5, 6, 2]]


def test_ranks_that_were_added_or_leave_are_no_hindrance():
    assert keep_slots([[1, 0, 2, 3]], [[0, 1]], 2).tolist() == [[0, 1, 2, 3]]
    assert keep_slots([[1, 0]], [[0, 1, 2, 3]], 1).tolist() == [[0, 1]]
    assert keep_slots([[1, 0, 2, 3]], [[0, 1, -1, -1]], 2).tolist() == [[0, 1, 2, 3]]


def test_the_arguments_are_left_alone():
    new, old = np.array([[1, 0]]), np.array([[0, 1]])
    keep_slots(new, old, 1)
    assert new.tolist() == [[1, 0]]
    assert old.tolist() == [[0, 1]]


@settings(max_examples=100)
@given(two_placements())
def test_no_relabelling_of_ranks_takes_fewer_transfers_or_then_fewer_copies(case):
    new, old, ranks = case
    matched = match_ranks(new, old, ranks)
    slots = new.shape[1] // ranks

    def stay(table, layer):
        """Return the slots whose expert their rank holds, and of those the ones that need no copy within it either."""
        here = [table[layer, r * slots : (r + 1) * slots] for r in range(ranks)]
        there = [row[row >= 0] for row in (old[layer, r * slots : (r + 1) * slots] for r in range(ranks))]
        kept = sum(int(np.isin(h, t).sum()) for h, t in zip(here, there, strict=True))
        return kept, sum(kept_at_best(h, t) for h, t in zip(here, there, strict=True))

    for layer in range(len(new)):
        sets = new[layer].reshape(ranks, slots)
        assert sorted(map(tuple, matched[layer].reshape(ranks, slots))) == sorted(map(tuple, sets))
        every = [
            np.tile(sets[list(order)].reshape(-1), (len(new), 1)) for order in itertools.permutations(range(ranks))
        ]
        assert stay(matched, layer) == max(stay(table, layer) for table in every)


def test_ranks_change_places_only_within_their_node():
    assert match_ranks([[2, 3, 0, 1]], [[0, 1, 2, 3]], num_ranks=4, num_nodes=1).tolist() == [[0, 1, 2, 3]]
    assert match_ranks([[2, 3, 0, 1]], [[0, 1, 2, 3]], num_ranks=4, num_nodes=2).tolist() == [[2, 3, 0, 1]]
    assert match_ranks([[1, 0, 3, 2]], [[0, 1, 2, 3]], num_ranks=4, num_nodes=2).tolist() == [[0, 1, 2, 3]]


def test_nothing_in_force_changes_nothing():
    new = np.array([[3, 1, 0, 2], [0, 1, 2, 3]])
    assert np.array_equal(match_ranks(new, np.full((2, 4), -1), 2), new)
    assert np.array_equal(match_ranks(new, np.empty((2, 0), dtype=np.int64), 2), new)


def test_the_number_of_threads_changes_nothing():
    generator = np.random.default_rng(0)
    new, old = (generator.integers(0, 40, (5, 48)) for _ in range(2))
    assert np.array_equal(match_ranks(new, old, 8, threads=1), match_ranks(new, old, 8, threads=3))


@pytest.mark.parametrize("verb", [keep_slots, match_ranks])
def test_placements_that_do_not_fit_together_are_refused(verb):
    with pytest.raises(InvalidPlacementError, match="1 layers and current has 2; pass placements of the same model"):
        verb([[0, 1]], [[0, 1], [0, 1]], 1)
    with pytest.raises(IndivisibleError, match="3 slots do not spread evenly over 2 ranks"):
        verb([[0, 1, 2]], [[0, 1, 2]], 2)
    with pytest.raises(InvalidPlacementError, match="must hold integers"):
        verb([[0.5, 1]], [[0, 1]], 1)
    with pytest.raises(IndivisibleError, match="4 ranks do not spread evenly over 3 nodes"):
        match_ranks([[0, 1, 2, 3]], [[0, 1, 2, 3]], 4, 3)
