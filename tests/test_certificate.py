from __future__ import annotations

import numpy as np
import pytest

from equipoise import Certificate
from equipoise.errors import InvalidInputError


def test_the_gap_is_max_rank_load_over_lower_bound_less_one() -> None:
    certificate = Certificate(np.array([2.0, 4.0, 0.0]), np.array([3.0, 4.0, 0.0]), ("mean",) * 3)
    assert certificate.gap.tolist() == [0.5, 0.0, 0.0]
    assert certificate.mean_gap == pytest.approx(0.5 / 3)
    assert certificate.max_gap == 0.5


def test_a_bound_above_what_it_bounds_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"layer 1 claims a lower bound of 5\.0"):
        Certificate(np.array([1.0, 5.0]), np.array([2.0, 4.0]), ("mean", "mean"))


def test_a_bound_above_it_by_rounding_alone_is_cut_to_it() -> None:
    certificate = Certificate(np.array([1.0 + 2e-16]), np.array([1.0]), ("mean",))
    assert certificate.lower_bound.tolist() == [1.0]


def test_one_entry_a_layer_is_needed() -> None:
    with pytest.raises(InvalidInputError, match="each needs one per layer"):
        Certificate(np.array([1.0]), np.array([2.0, 3.0]), ("mean",))
