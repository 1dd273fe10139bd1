"""Steps from a placement in force: the native version makes those of the plain one, and each lowers the objective."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from equipoise.robust.reference import objective_of
from equipoise.robust.steps import MAX, descend, reference
from replans import random_in_force


def instance(seed: int) -> tuple[Any, ...] | None:
    """Return arguments of ``descend`` for small random layers in force, with small rows that tie or large ones."""
    rng = np.random.default_rng(seed)
    start = random_in_force(rng)
    if start is None:
        return None
    layers, ranks, experts = start.was.shape
    rows = rng.integers(0, 9 if rng.random() < 0.4 else 60_000, (layers, 1 + int(rng.integers(1, 5)), experts))
    rows[:, 1:] -= rows[:, 1:].mean(axis=2, keepdims=True).astype(int)
    level = (rows[:, 0].sum(axis=1) // ranks) ** 2 * ranks
    limit = start.taken + rng.integers(0, 7, layers)
    return rows.astype(np.int32), start.held, start.was, start.node, start.home, level, limit


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32))
def test_both_versions_make_the_same_steps(seed: int) -> None:
    asked = instance(seed)
    assume(asked is not None)
    assert asked is not None
    for one, other in zip(descend(*asked), reference.descend(*asked), strict=True):
        assert one.tolist() == other.tolist()


def crowded(seed: int) -> tuple[Any, ...]:
    """Return arguments of ``descend`` for a layer with three slots a rank, one of whose experts is too hot for any."""
    rng = np.random.default_rng(seed)
    ranks, slots, experts, unit = 5, 3, 10, 2**16
    load = [1.3 * unit, *rng.dirichlet(np.full(experts - 1, 2.0)) * unit * (ranks - 1.3)]
    rows = np.stack([load, *rng.normal(0, 2000, (3, experts))])[None].astype(np.int32)
    spare = rng.choice(np.arange(1, experts), ranks * slots - experts, replace=False)
    held = np.array([0, *rng.permutation([*range(1, experts), *spare])], dtype=np.int32).reshape(1, ranks, slots)
    was = (held[..., None] == np.arange(experts)).any(axis=2)
    level = np.array([ranks * unit**2])
    return rows, held, was, np.zeros(ranks, np.int32), np.zeros((1, experts), np.int32), level, np.array([20])


def test_both_versions_make_the_same_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    found, plain = [], reference.best_chain
    monkeypatch.setattr(reference, "best_chain", lambda *asked: found.append(plain(*asked)) or found[-1])
    for seed in range(40):
        asked = crowded(seed)
        for one, other in zip(descend(*asked), reference.descend(*asked), strict=True):
            assert one.tolist() == other.tolist()
    assert sum(bool(step.writes) for step in found) >= 5


def test_a_chain_goes_on_where_no_step_is_worth_its_transfers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = crowded(19)
    excess = descend(*asked)[1][0, -1] - asked[5][0]
    monkeypatch.setattr(reference, "best_chain", lambda *_: reference.NO_STEP)
    assert excess < (reference.descend(*asked)[1][0, -1] - asked[5][0]) / 3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_objective_falls_within_the_limit_and_is_that_of_the_slots(seed: int) -> None:
    asked = instance(seed)
    assume(asked is not None)
    assert asked is not None
    held, curve, spent, _ = descend(*asked)
    for at, limit in enumerate(asked[6]):
        known = curve[at][curve[at] < MAX]
        assert (np.diff(known) <= 0).all()
        assert known[-1] == objective_of(asked[0][at], held[at]) <= objective_of(asked[0][at], asked[1][at])
        fresh = sum(not asked[2][at, g, e] for g, rank in enumerate(held[at]) for e in rank if e >= 0)
        assert fresh == spent[at] <= limit


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_a_larger_limit_goes_on_where_a_smaller_one_ends(seed: int) -> None:
    asked = instance(seed)
    assume(asked is not None)
    assert asked is not None
    whole = descend(*asked[:6], asked[6] + 30)[1]
    held, limit = asked[1], asked[6]
    for _ in range(8):
        held, curve, _, ended = descend(asked[0], held, *asked[2:6], limit)
        for at, most in enumerate(limit):
            assert curve[at, most] == whole[at, most]
            assert not ended[at] or curve[at, most] == whole[at, -1]
        limit = limit + 1


def test_an_expert_whose_load_is_volatile_moves_away_from_one_that_rises_with_it() -> None:
    together = np.array([[[4, 4, 4, 4], [3, 3, 0, 0]]], dtype=np.int32) * 1000
    held = np.array([[[0, 1], [2, 3]]], dtype=np.int32)
    was = np.array([[[True, True, False, False], [False, False, True, True]]])
    node, home = np.zeros(2, np.int32), np.zeros((1, 4), np.int32)
    level = np.array([2 * 8000**2])
    slots, _, spent, ended = descend(together, held, was, node, home, level, np.array([5]))
    assert spent.tolist() == [2]
    assert ended.all()
    assert all({0, 1} & set(rank) for rank in slots[0].tolist())


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads: int) -> None:
    asked = instance(5)
    assert asked is not None
    for one, other in zip(descend(*asked), descend(*asked, threads=threads), strict=True):
        assert one.tolist() == other.tolist()
