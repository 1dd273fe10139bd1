from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from equipoise import Cluster, LoadStatistics, PlacementProblem
from equipoise.errors import IndivisibleError, InfeasibleError, InvalidInputError

LOAD = [[4.0, 2.0, 1.0, 1.0]]


def test_a_cluster_counts_its_slots() -> None:
    cluster = Cluster(num_ranks=32, slots_per_rank=9, num_nodes=4)
    assert (cluster.num_slots, cluster.ranks_per_node) == (288, 8)
    assert Cluster.from_slots(32, 288, 4) == cluster


def test_counts_may_be_numpy_integers() -> None:
    assert Cluster(np.int32(4), np.uint8(2)) == Cluster(4, 2)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "4", None, True])
def test_a_count_that_is_no_positive_whole_number_is_named(wrong: object) -> None:
    with pytest.raises(InvalidInputError, match=r"num_ranks is .*whole number of at least 1"):
        Cluster(num_ranks=wrong, slots_per_rank=2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Cluster(6, 2, num_nodes=4), "6 ranks do not spread evenly over 4 nodes"),
        (lambda: Cluster.from_slots(32, 289), "289 slots do not spread evenly over 32 ranks. Add 31 slots"),
        (lambda: PlacementProblem(LOAD, Cluster(2, 2), 3), "4 logical experts do not form 3 equal groups"),
    ],
)
def test_counts_that_do_not_divide_are_refused(make, says) -> None:
    with pytest.raises(IndivisibleError, match=says):
        make()


def test_fewer_slots_than_experts_are_refused_with_the_number_to_add() -> None:
    with pytest.raises(InfeasibleError, match=r"2 slots cannot hold 4 logical experts.*Add at least 2 slots"):
        PlacementProblem(LOAD, Cluster(2, 1))


def test_drop_in_callers_catch_refused_counts_as_assertion_errors() -> None:
    assert issubclass(IndivisibleError, AssertionError)
    assert issubclass(InfeasibleError, AssertionError)


@pytest.mark.parametrize(
    "load",
    [
        np.array(LOAD),
        np.array(LOAD, dtype=np.int64),
        np.array(LOAD, dtype=np.float32),
        np.array(LOAD, dtype=np.uint16),
        torch.tensor(LOAD),
        torch.tensor(LOAD, dtype=torch.bfloat16),
        torch.tensor(LOAD, dtype=torch.int32),
        torch.tensor(LOAD, requires_grad=True),
        LoadStatistics(LOAD),
        LOAD,
    ],
    ids=lambda load: f"{type(load).__name__}-{getattr(load, 'dtype', '')}",
)
def test_the_same_load_in_any_container_is_the_same_problem(load) -> None:
    problem = PlacementProblem(load, Cluster(2, 3))
    assert problem.load.dtype == np.float64
    assert problem.digest == PlacementProblem(LOAD, Cluster(2, 3)).digest


def test_steps_are_summed() -> None:
    steps = np.arange(24).reshape(3, 2, 4)
    assert PlacementProblem(steps, Cluster(2, 2)).load.tolist() == steps.sum(axis=0).tolist()


def test_a_problem_does_not_change_when_its_load_array_does() -> None:
    load = np.array(LOAD)
    problem = PlacementProblem(load, Cluster(2, 3))
    load[0, 0] = 99.0
    assert problem.load[0, 0] == 4.0
    with pytest.raises(ValueError, match="read-only"):
        problem.load[0, 0] = 1.0


def test_nouns_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Cluster(2, 2).num_ranks = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ([[1.0, float("nan")]], "load is nan at layer 0, expert 1"),
        ([[1.0], [float("inf")]], "load is inf at layer 1, expert 0"),
        ([[[1.0, -2.0]]], "load is -2.0 at step 0, layer 0, expert 1"),
        ([1.0, 2.0], r"load has shape \(2,\)"),
        (np.zeros((0, 4)), "empty"),
        (np.zeros((2, 0)), "empty"),
        ([[1.0], [1.0, 2.0]], "ragged"),
        ([["many"]], "integers or floats"),
        ([[1 + 2j]], "integers or floats"),
        ([[1.7e308, 1.7e308]], "more than"),
    ],
)
def test_a_load_that_breaks_a_rule_is_refused_with_the_place(load, says) -> None:
    with pytest.raises(InvalidInputError, match=says):
        PlacementProblem(load, Cluster(2, 2))


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (torch.ones(2, 2, device="meta"), "on meta, which cannot become a plain array; pass a dense tensor"),
        (torch.ones(2, 2, dtype=torch.complex64), "holds complex64 values"),
        (torch.ones(2, 2).to_sparse(), "torch.sparse_coo tensor"),
        (np.ma.masked_array([[1, 2]], [[0, 1]]), r"masked array; .* load.filled\(0\)"),
    ],
)
def test_an_array_that_hides_numbers_is_refused(load, says) -> None:
    with pytest.raises(InvalidInputError, match=says):
        PlacementProblem(load, Cluster(2, 2))


def test_some_layers_are_a_problem_of_their_own() -> None:
    problem = PlacementProblem([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], Cluster(2, 2), 2)
    part = problem.of_layers(np.array([2, 0]))
    assert part.load.tolist() == [[5.0, 6.0], [1.0, 2.0]]
    assert (part.cluster, part.num_expert_groups) == (problem.cluster, 2)
    assert not part.load.flags.writeable


def test_a_problem_is_hierarchical_only_if_the_nodes_divide_the_groups() -> None:
    load = np.ones((1, 8))
    assert PlacementProblem(load, Cluster(4, 2, num_nodes=2), 4).is_hierarchical
    assert not PlacementProblem(load, Cluster(3, 3, num_nodes=3), 4).is_hierarchical
    assert not PlacementProblem(load, Cluster(4, 2), 4).is_hierarchical
    assert not PlacementProblem(load, Cluster(4, 2, num_nodes=2)).is_hierarchical


def test_the_digest_tells_questions_apart() -> None:
    load = np.ones((1, 8))
    digests = {
        PlacementProblem(load, Cluster(4, 2)).digest,
        PlacementProblem(load * 2, Cluster(4, 2)).digest,
        PlacementProblem(load, Cluster(2, 4)).digest,
        PlacementProblem(load, Cluster(4, 2, 2)).digest,
        PlacementProblem(load, Cluster(4, 2), 4).digest,
        PlacementProblem(load.reshape(2, 4), Cluster(4, 2)).digest,
    }
    assert len(digests) == 6


def test_lists_of_tensors_are_taken_whatever_their_type() -> None:
    load = torch.arange(1, 17).reshape(2, 8)
    for each in (list(load), list(load.bfloat16()), list(load.double().requires_grad_()), [list(load)]):
        assert PlacementProblem(each, Cluster(3, 3)).load.tolist() == load.tolist()
    with pytest.raises(InvalidInputError, match=r"load\[0\] is a .* on meta, which cannot become a plain array"):
        PlacementProblem(list(torch.empty(2, 8, device="meta")), Cluster(3, 3))


def test_a_data_frame_of_counts_is_a_load_and_one_of_keys_is_none() -> None:
    pandas = pytest.importorskip("pandas")
    counts = np.arange(8).reshape(2, 4)
    named = pandas.DataFrame(counts, columns=[f"expert_{i}" for i in range(4)])
    for frame in (pandas.DataFrame(counts), named, named.astype("Int64"), named.astype(float)):
        assert PlacementProblem(frame, Cluster(2, 2)).load.tolist() == counts.tolist()
    long = named.stack().rename_axis(["layer", "expert"]).rename("count").reset_index()
    for frame in (long, named.rename_axis("layer").reset_index()):
        with pytest.raises(InvalidInputError, match="is a table with a column 'layer', which is no expert"):
            PlacementProblem(frame, Cluster(2, 2))
    with pytest.raises(InvalidInputError, match="nan at layer 0, expert 1"):
        PlacementProblem(named.astype("Int64").mask(counts == 1), Cluster(2, 2))
