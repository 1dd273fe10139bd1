"""The native assignment costs no more than the best of all."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from equipoise.kernels.assignment import numba, reference


def total(cost, row_of):
    assert sorted(row_of.tolist()) == list(range(len(cost)))
    return int(sum(cost[row, column] for column, row in enumerate(row_of)))


@pytest.mark.parametrize("n", range(7))
def test_it_is_as_good_as_trying_every_choice(n):
    rng = np.random.default_rng(n)
    for _ in range(20):
        cost = rng.integers(-5, 5, (n, n))
        assert total(cost, numba.assign(cost)) == total(cost, reference.assign(cost))


@pytest.mark.parametrize("n", [32, 64])
def test_it_is_as_good_as_an_independent_solver(n):
    cost = -np.random.default_rng(n).integers(0, 9, (n, n))
    assert total(cost, numba.assign(cost)) == cost[linear_sum_assignment(cost)].sum()
