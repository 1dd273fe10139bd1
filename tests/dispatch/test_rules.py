"""The engines' rules against a plain reading of each, token by token; their own code is asked by make test-engines."""

from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.dispatch.rules import RULES, Maps, batch_of, deal, find_rule, slot_tokens
from equipoise.errors import UnknownNameError

RANKS, PER_RANK, LAYERS, EXPERTS = 4, 4, 3, 11


def placement(seed: int = 0) -> eq.Placement:
    draw = np.random.default_rng(seed)
    tables = []
    for _ in range(LAYERS):
        more = draw.integers(0, 4, RANKS * PER_RANK - EXPERTS)
        tables.append(draw.permutation(np.concatenate([np.arange(EXPERTS), more])))
    return eq.Placement(np.array(tables), RANKS, EXPERTS)


TOKENS = [np.random.default_rng(i).integers(0, EXPERTS, (13 + i, LAYERS, 2)) for i in range(3)]


def batch(seed: int = 0):
    return batch_of(TOKENS, RANKS, np.random.default_rng(seed))


def entries(found, maps: Maps, slots: np.ndarray):
    """Yield for each entry the replicas of its expert, and all that rules look at."""
    columns = (found.step, found.layer, found.expert, found.rank, found.row, found.draw, slots)
    for step, layer, expert, rank, row, draw, slot in zip(*(c.tolist() for c in columns), strict=True):
        replicas = np.flatnonzero(maps.placement.physical_to_logical[layer] == expert).tolist()
        yield replicas, (step, layer, expert, rank, row, draw), slot


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("vllm", lambda rank, row, draw: (row * 2654435769) % 2**32),
        ("sglang-dynamic", lambda rank, row, draw: draw),
        ("ascend", lambda rank, row, draw: rank),
    ],
)
def test_a_replica_is_chosen_by_a_number_modulo_their_count(name: str, number) -> None:
    found, maps = batch(), Maps(placement())
    slots = RULES[name].choose(maps, found)
    for replicas, (_, _, _, rank, row, draw), slot in entries(found, maps, slots):
        assert slot == replicas[number(rank, row, draw) % len(replicas)]


def test_tensorrt_llm_takes_replicas_in_turn_on_each_rank() -> None:
    found, maps = batch(), Maps(placement())
    seen: dict[tuple, int] = {}
    for replicas, (step, layer, expert, rank, _, _), slot in entries(
        found, maps, RULES["tensorrt-llm"].choose(maps, found)
    ):
        turn = seen.get((step, layer, expert, rank), 0)
        seen[step, layer, expert, rank] = turn + 1
        assert slot == replicas[(turn + rank) % len(replicas)]


@pytest.mark.parametrize("nodes", [1, 2])
def test_sglang_static_stays_near_and_is_dealt_fairly_elsewhere(nodes: int) -> None:
    held = placement(4)
    chosen = Maps(held, nodes).sglang_static
    for layer in range(LAYERS):
        for expert in range(EXPERTS):
            replicas = np.flatnonzero(held.physical_to_logical[layer] == expert)
            others = []
            for rank in range(RANKS):
                slot = int(chosen[rank, layer, expert])
                assert slot in replicas
                own = replicas[replicas // PER_RANK == rank]
                near = replicas[replicas // PER_RANK // (RANKS // nodes) == rank // (RANKS // nodes)]
                if len(own):
                    assert slot == own[0]
                elif 0 < len(near) < len(replicas):
                    assert slot == near[0]
                else:
                    others.append(slot)
            number = np.bincount(others, minlength=held.num_slots)[replicas]
            assert number.max() - number.min() <= 1


def test_tokens_lie_on_ranks_in_equal_parts_and_rows_count_from_0() -> None:
    found = batch()
    for step, ids in enumerate(TOKENS):
        here = found.step == step
        pairs = {(int(r), int(i)) for r, i in zip(found.rank[here], found.row[here], strict=True)}
        assert len(pairs) == len(ids)
        sizes = [sum(rank == r for rank, _ in pairs) for r in range(RANKS)]
        assert max(sizes) - min(sizes) <= 1
        assert all({i for rank, i in pairs if rank == r} == set(range(sizes[r])) for r in range(RANKS))


@pytest.mark.parametrize("name", list(RULES))
def test_no_token_is_lost_whatever_the_rule(name: str) -> None:
    counts = np.array(
        [[np.bincount(ids[:, layer].ravel(), minlength=EXPERTS) for layer in range(LAYERS)] for ids in TOKENS]
    )
    held = placement(7)
    for tokens in (batch(), deal(counts, RANKS, 2, np.random.default_rng(1))):
        slots = slot_tokens(RULES[name], Maps(held), counts.astype(float), tokens)
        for step in range(len(counts)):
            for layer in range(LAYERS):
                table = held.physical_to_logical[layer]
                assert np.allclose(np.bincount(table, slots[step, layer], EXPERTS), counts[step, layer])


def test_best_is_never_above_even_and_even_is_what_placements_count() -> None:
    counts = np.random.default_rng(2).integers(0, 40, (4, LAYERS, EXPERTS)).astype(float)
    held = placement(3)
    even, best = (
        slot_tokens(RULES[name], Maps(held), counts, None).reshape(4, LAYERS, RANKS, -1).sum(axis=3)
        for name in ("even", "best")
    )
    assert np.allclose(even, [held.rank_load(step) for step in counts])
    assert (best.max(axis=2) <= even.max(axis=2) * (1 + 1e-9)).all()
    assert (best.max(axis=2) < even.max(axis=2) * 0.99).any()


def test_dealt_tokens_follow_the_generator_alone() -> None:
    counts = np.random.default_rng(2).integers(0, 40, (2, LAYERS, EXPERTS))
    a, b = (deal(counts, RANKS, 2, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="dispatch is 'fair'; it must be one of 'even'"):
        find_rule("fair")
