"""Levelling rank by rank: native as in plain Python, and what no step may do."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from equipoise.replan.pairs import MAX, numba, reference


def instance(seed: int):
    """Return the arguments of ``exchange`` for two small random layers: empty slots, two nodes, seldom duplicates."""
    rng = np.random.default_rng(seed)
    nodes, per_node, slots = (int(rng.integers(1, high)) for high in (3, 5, 5))
    ranks = nodes * per_node
    node = np.repeat(np.arange(nodes, dtype=np.int32), per_node)
    experts = int(rng.integers(1, ranks * slots + 1))
    held = np.full((2, ranks, slots), -1, dtype=np.int32)
    for layer in held:
        layer.reshape(-1)[rng.permutation(ranks * slots)[:experts]] = np.arange(experts)
        for g in range(ranks):
            for s in np.flatnonzero(layer[g] < 0):
                e = int(rng.integers(experts))
                if e not in layer[g] or rng.random() < 0.02:
                    layer[g, s] = e
    small, large = rng.integers(0, 9, (2, experts)), rng.random((2, experts)) ** 3 * 2**40
    weight = (small if rng.random() < 0.5 else large).astype(np.int64)
    target = (weight.sum(axis=1) // ranks * (1 + rng.choice([0.0, 0.1]))).astype(np.int64)
    return held, weight, node, target


def is_doubled(layer) -> bool:
    return any(len(set(row[row >= 0])) < (row >= 0).sum() for row in layer)


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_both_implementations_take_the_same_steps(seed):
    held, weight, node, target = instance(seed)
    plain, native = held.copy(), held.copy()
    one, other = reference.exchange(plain, weight, node, target), numba.exchange(native, weight, node, target, 1)
    assert one.tolist() == other.tolist()
    assert plain.tolist() == native.tolist()


@settings(max_examples=100)
@given(st.integers(0, 2**32))
def test_no_rank_gets_heavier_than_the_busiest_was_and_experts_keep_their_place_in_the_rules(seed):
    held, weight, node, target = instance(seed)
    after = held.copy()
    busiest = numba.exchange(after, weight, node, target, 1)
    for before, now, row, most in zip(held, after, weight, busiest, strict=True):
        if is_doubled(before):
            assert most == MAX
            assert now.tolist() == before.tolist()
            continue
        loads = [
            sum(int(row[e]) // int((layer == e).sum()) for e in rank[rank >= 0])
            for layer in (before, now)
            for rank in layer
        ]
        half = len(loads) // 2
        assert max(loads[half:]) == most <= max(loads[:half])
        assert not is_doubled(now)
        assert set(now.ravel()) - {-1} == set(before.ravel()) - {-1}
        assert ((now < 0) == (before < 0)).all()


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_a_layer_that_is_level_is_left_alone(seed):
    held, weight, node, target = instance(seed)
    assume(not any(is_doubled(layer) for layer in held))
    numba.exchange(held, weight, node, target, 1)
    after = held.copy()
    busiest = numba.exchange(after, weight, node, np.full(2, 2**60), 1)
    assert after.tolist() == held.tolist()
    assert (busiest < MAX).all()


def test_a_hot_expert_gets_a_replica_where_exchanges_do_not_help():
    held = np.array([[[0, 1], [2, 3], [2, 4]]], dtype=np.int32)
    weight = np.array([[90, 10, 10, 10, 10]])
    busiest = numba.exchange(held, weight, np.zeros(3, dtype=np.int32), np.array([60]), 1)
    assert (held[0] == 0).sum() == 2
    assert busiest.tolist() == [55]
