"""Plans made by several processes together."""

from __future__ import annotations

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import DisagreementError, EquipoiseError, InfeasibleError, InvalidInputError, RanksLostError
from equipoise.load import drift_load, generate_load
from equipoise.migration.peers import Peers
from equipoise.online import plan_sharded
from equipoise.online import sharded as module
from migration import processes


def problem_of(layers, groups=None):
    load = generate_load("deepseek-v3", seed=0).load[:layers]
    return eq.PlacementProblem(load, eq.Cluster(16, 18, num_nodes=4), groups)


def drifted(layers):
    """Return a placement in force and the problem after a drift."""
    problem = problem_of(layers)
    moved = eq.PlacementProblem(drift_load(problem.load, 0.3, seed=1), problem.cluster)
    return eq.solve(problem, "plain-greedy").placement, moved


def questions():
    """Return problems and what is asked of them: layers that the ranks do not divide, and fewer than ranks."""
    current, moved = drifted(7)
    thorough = {"strategy": "joint-descent", "effort": "thorough", "max_gap": 0.0}
    return [
        (problem_of(7), {}),
        (problem_of(2, groups=8), {"seed": 5}),
        (problem_of(2), thorough),
        (problem_of(5), {"strategy": "pruned-restarts", "restarts": 64, "seed": 3}),
        (moved, {"current": current, "max_transfers": 5}),
        (moved, {"current": current, "lost_ranks": [3], "strategy": "plain-greedy"}),
    ]


def plan_all(rank):
    peers = Peers()
    plans = [plan_sharded(problem, peers, **asked) for problem, asked in questions()]
    return [plan.to_json() for plan in plans]


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 4])
def test_ranks_together_plan_the_same_bits_as_one_alone(size):
    alone = [eq.solve(problem, **asked) for problem, asked in questions()]
    told = processes.run(plan_all, size, seconds=120)
    assert told == [[plan.to_json() for plan in alone]] * size


def refuse_all(rank):
    """Return the errors that this rank sees: three where ranks differ, three where they ask what cannot be."""
    peers, errors = Peers(), []
    current, moved = drifted(3)
    other = eq.PlacementProblem(moved.load + (rank == 1), moved.cluster)
    moved_by_one = eq.Placement(np.roll(current.physical_to_logical, rank == 2), 16, 256)
    lacking = current.physical_to_logical.copy()
    lacking[2][lacking[2] == 7] = 8
    needs_one = eq.Placement(lacking, 16, 256)
    for problem, asked in [
        (other, {}),
        (moved, {"seed": int(rank == 0)}),
        (moved, {"current": moved_by_one}),
        (moved, {"deadline": 1.0}),
        (moved, {"current": needs_one, "max_transfers": 0}),
        (moved, {"effort": "none"}),
    ]:
        try:
            plan_sharded(problem, peers, **asked)
        except EquipoiseError as error:
            errors.append((type(error), str(error)))
    return errors


@pytest.mark.slow
def test_what_one_rank_refuses_or_asks_otherwise_every_rank_refuses():
    told = processes.run(refuse_all, 3)
    assert told[0] == told[1] == told[2]
    kinds, sentences = zip(*told[0], strict=True)
    assert [kind.__name__ for kind in kinds] == [
        *[DisagreementError.__name__] * 3, InvalidInputError.__name__, InfeasibleError.__name__, "UnknownNameError"
    ]  # fmt: skip
    for sentence, groups in zip(sentences, (("[0, 2]", "[1]"), ("[0]", "[1, 2]"), ("[0, 1]", "[2]")), strict=False):
        assert "nothing is planned" in sentence
        assert all(f"on ranks {ranks}" in sentence for ranks in groups)
    assert sentences[3].startswith("deadline is for all layers together")
    assert sentences[4].startswith("rank 2 could not plan its layers, 2 to 2: layer 0 has 1 experts")
    assert "effort is 'none'" in sentences[5]


def plan_with_another_version(rank):
    peers = Peers()
    module.__version__ = f"{eq.__version__}{'.post1' if rank == 1 else ''}"
    try:
        plan_sharded(problem_of(2), peers, "plain-greedy")
    except EquipoiseError as error:
        return type(error), str(error)


@pytest.mark.slow
def test_ranks_with_different_versions_are_told_and_plan_nothing():
    told = processes.run(plan_with_another_version, 3)
    assert told[0] == told[1] == told[2]
    kind, sentence = told[0]
    assert kind is DisagreementError
    assert "on ranks [0, 2]" in sentence
    assert "on ranks [1]" in sentence
    assert "Plan with the same version" in sentence


def refuse_at_once(rank):
    """Return what is said of arguments that no rank could agree on; of peers, on one rank alone."""
    problem, peers, sentences = eq.PlacementProblem([[1, 2, 3]], eq.Cluster(1, 4)), Peers(), []
    for given, asked in [
        (None, {}),
        (peers, {"timeout": "x"}),
        (peers, {"timeout": 0}),
        (peers, {"lost_ranks": 3}),
        (peers, {"lost_ranks": [3]}),
    ]:
        with pytest.raises(InvalidInputError) as raised:
            plan_sharded(problem, given, current=eq.Placement([[0, 1, 2, 0]], 1, 3), **asked)
        sentences.append(str(raised.value))
    return sentences


@pytest.mark.slow
def test_arguments_that_are_none_are_refused_with_the_reason():
    ((peers, text, zero, number, none_such),) = processes.run(refuse_at_once, 1)
    assert peers.startswith("peers is a NoneType; pass Peers()")
    assert text.startswith("timeout is 'x'; it must be a number of seconds above 0")
    assert zero.startswith("timeout is 0;")
    assert number == "lost_ranks is 3; it must list ranks, such as [0], or be ()."
    assert "lost_ranks names 3" in none_such


def break_down(rank, how):
    peers = Peers()

    def fail(*arguments, **more):
        if how == "killed":
            processes.die()
        raise ZeroDivisionError("a bug")

    if rank == 1:
        module.solve = fail
    try:
        plan_sharded(problem_of(3), peers, timeout=10.0)
    except EquipoiseError as error:
        return type(error), str(error), getattr(error, "lost_ranks", None)


@pytest.mark.slow
def test_a_bug_on_one_rank_is_an_error_on_all():
    told = processes.run(break_down, 3, "broken")
    sentence = "rank 1 could not plan its layers, 1 to 1: ZeroDivisionError: a bug"
    assert told == [(EquipoiseError, sentence, None)] * 3


@pytest.mark.slow
def test_a_rank_that_is_killed_while_it_plans_is_told_by_all_others():
    told = processes.run(break_down, 3, "killed", seconds=30)
    assert told[1] is None
    assert told[0] == told[2]
    assert told[0][0] is RanksLostError
    assert told[0][2] == (1,)
