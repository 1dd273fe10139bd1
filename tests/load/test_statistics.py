from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from equipoise.arrays import as_load
from equipoise.errors import InvalidInputError
from equipoise.load import LoadStatistics
from equipoise.problem import Cluster, PlacementProblem

COUNTS = hnp.arrays(
    np.int64, hnp.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=st.integers(0, 10**6)
)  # whole numbers: sums are exact in any order


@given(COUNTS)
def test_the_sums_are_those_of_the_windows(counts: Any) -> None:
    stats = LoadStatistics(counts)
    assert stats.tokens_per_expert.shape == (stats.num_windows, stats.num_layers, stats.num_logical_experts)
    assert np.array_equal(stats.load, counts.sum(axis=0))
    assert np.array_equal(stats.tokens_per_layer, counts.sum(axis=(0, 2)))
    assert np.array_equal(as_load(stats), stats.load)


@given(COUNTS)
def test_skew_is_at_least_one_and_exactly_one_in_an_empty_layer(counts: Any) -> None:
    stats = LoadStatistics(counts)
    assert (stats.skew >= 1 - 1e-12).all()
    assert all(stats.skew[layer] == 1 for layer in stats.empty_layers)


@given(COUNTS, st.integers(0, 4))
def test_two_halves_of_the_windows_make_the_whole(counts: Any, at: int) -> None:
    stats = LoadStatistics(counts)
    if 0 < at < stats.num_windows:
        first, rest = stats.window(slice(None, at)), stats.window(slice(at, None))
        assert np.array_equal(first.load + rest.load, stats.load)


def test_a_layer_without_tokens_is_kept_and_reported() -> None:
    stats = LoadStatistics([[0, 0], [3, 1], [0, 0]])
    assert stats.num_layers == 3
    assert stats.empty_layers == (0, 2)
    assert stats.skew.tolist() == [1.0, 1.5, 1.0]


def test_one_window_is_selected_by_number_from_either_end() -> None:
    stats = LoadStatistics([[[1, 0]], [[2, 0]], [[3, 0]]], "recorder", (7,))
    assert [stats.window(i).load[0, 0] for i in (0, 2, -1, -3)] == [1, 3, 3, 1]
    assert (stats.window(1).source, stats.window(1).layer_ids) == ("recorder", (7,))


@pytest.mark.parametrize("selection", [3, -4, slice(2, 2)])
def test_selecting_no_window_is_refused(selection: Any) -> None:
    with pytest.raises(InvalidInputError, match="holds no window; 3 are there, numbered 0 to 2"):
        LoadStatistics(np.ones((3, 1, 2))).window(selection)


def test_a_problem_takes_statistics_and_sums_their_windows() -> None:
    stats = LoadStatistics([[[4, 2]], [[1, 1]]])
    assert PlacementProblem(stats, Cluster(2, 1)).load.tolist() == [[5.0, 3.0]]


def test_the_arrays_are_copies_that_cannot_be_written() -> None:
    counts = np.ones((1, 1, 2))
    stats = LoadStatistics(counts)
    counts[:] = 7
    assert stats.load.tolist() == [[1.0, 1.0]]
    for array in (stats.tokens_per_expert, stats.load, stats.tokens_per_layer):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_torch_tensors_of_every_kind_are_taken(dtype: torch.dtype) -> None:
    assert LoadStatistics(torch.tensor([[4, 2]], dtype=dtype)).load.tolist() == [[4.0, 2.0]]


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ([1, 2], r"has shape \(2,\); it must be \(layers, experts\) or \(windows, layers, experts\)"),
        ([[[[1]]]], r"has shape \(1, 1, 1, 1\)"),
        ([[]], r"has shape \(1, 0\), which is empty"),
        ([[1, 2], [3]], "is ragged"),
        ([["a"]], "it must hold integers or floats"),
        ([[1, 2], [3, float("nan")]], "is nan at layer 1, expert 1; loads must be finite and not negative"),
        ([[[1, 2]], [[-3, 1]]], "is -3.0 at window 1, layer 0, expert 0"),
        ([[[1e308, 1]], [[1e308, 1]]], "layer 0 sums to more than float64 can hold"),
    ],
)
def test_counts_that_break_a_rule_get_a_sentence(counts: Any, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=f"tokens_per_expert.* {sentence}"):
        LoadStatistics(counts)


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ((3,), "1 layer_ids cannot name 2 layers"),
        ((3, 3), "layer_ids holds 3 after 3; ids must ascend"),
        ((-1, 2), "layer_ids starts at -1; ids must ascend from 0"),
        ((0.5, 2), "it must be a tuple of whole numbers"),
        (5, "it must be a tuple of whole numbers"),
    ],
)
def test_layer_ids_that_break_a_rule_get_a_sentence(ids: Any, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        LoadStatistics([[1], [2]], layer_ids=ids)


def test_layers_count_from_zero_unless_told() -> None:
    assert LoadStatistics([[1], [2]]).layer_ids == (0, 1)
    assert LoadStatistics([[1], [2]], layer_ids=np.array([3, 5])).layer_ids == (3, 5)


def test_a_source_that_is_no_string_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="source is 3"):
        LoadStatistics([[1]], source=3)
