"""The kernels of planning in time do what plain Python does, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from equipoise import LatencyModel
from equipoise.latency.curve import Curve, curve_of
from equipoise.timing.fill import fill_rows
from equipoise.timing.layer import Asked, Best, apart_rows, bound_rows, floor_rows, plan_rows
from equipoise.timing.nested import nest_rows
from equipoise.timing.order import order_rows
from equipoise.timing.reference import fill_layer, nest_layer, plan_layer, thin_layer
from equipoise.timing.reference.bound import floor_of, raised
from equipoise.timing.thin import thin_rows

MODELS = {
    "h200": LatencyModel(19.6, 11.7, 4.2, 0.063), "no floor": LatencyModel(0, 0, 3, 0.05),
    "no base": LatencyModel(5, 10, 0, 0.1), "no tokens": LatencyModel(2, 8, 8, 0), "a line": LatencyModel(0, 0, 0, 1),
}  # fmt: skip
SHAPES = [(12, 4, 3), (12, 4, 5), (10, 3, 4), (9, 8, 2), (5, 1, 6), (6, 6, 2), (3, 4, 2)]


def loads(experts: int) -> Iterator[np.ndarray]:
    """Yield mean tokens: skewed, alike, half of them zero, one giant, none."""
    draw = np.random.default_rng(experts)
    yield draw.pareto(0.9, experts) * 30
    yield np.full(experts, 40.0)
    yield np.where(np.arange(experts) % 2, draw.pareto(1.2, experts) * 200, 0.0)
    yield np.where(np.arange(experts) == experts // 2, 5000.0, 3.0)
    yield np.zeros(experts)


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def curve(request: pytest.FixtureRequest) -> Curve:
    return curve_of(*request.param.constants[1:])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_layer_is_planned_as_by_plain_python_with_ever_more_slots(curve: Curve, shape: tuple[int, int, int]) -> None:
    experts, ranks, slots = shape
    for tokens in loads(experts):
        ordered = order_rows(curve, tokens[None])
        best = Best(np.full((1, ranks, slots), -1, np.int32), *(np.full(1, np.inf) for _ in range(3)))
        found: tuple[list[list[int]], float, float] = ([], np.inf, np.inf)
        for each in range(-(-experts // ranks), slots + 1):
            floors = np.empty(1)
            floor_rows(curve, ordered, np.zeros(1, np.int64), (ranks, each), floors)
            given = np.array([best.time[0] * 1.1])
            asked = Asked((ranks, each), np.zeros(1, np.int64), given, floors, each < slots)
            plan_rows(curve, ordered, best, asked, 0.001)
            held, time, worth, bound = plan_layer(
                curve, tokens.tolist(), (ranks, each), found, (given[0], each < slots), 0.001
            )
            assert [[e for e in rank if e >= 0] for rank in best.held[0].tolist()] == (held or [[]] * ranks)
            assert (best.time[0], best.worth[0], asked.bound[0]) == (time, worth, bound)
            found = held, time, worth


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_bound_is_that_of_plain_python(curve: Curve, shape: tuple[int, int, int]) -> None:
    experts, ranks, slots = shape
    for tokens in loads(experts):
        least = floor_of(curve, tokens.tolist(), (ranks, slots))
        for achieved in (least, least * 1.1, least * 3.0 + 1.0):
            bounds = np.zeros(1)
            bound_rows(curve, order_rows(curve, tokens[None]), (ranks, slots), np.array([achieved]), bounds)
            plain = min(least, achieved)
            if plain * 1.005 < achieved:
                plain = raised(curve, tokens.tolist(), (ranks, slots), plain, achieved)
            assert bounds[0] == plain


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_empty_slots_and_first_replicas_are_those_of_plain_python(curve: Curve, shape: tuple[int, int, int]) -> None:
    experts, ranks, slots = shape
    for tokens in loads(experts):
        held = np.full((1, ranks, slots), -1, np.int32)
        held[0].flat[np.arange(experts) * (ranks * slots // experts)] = np.arange(experts)
        ordered, active = order_rows(curve, tokens[None]), np.empty(held.shape, np.bool_)
        filled = fill_layer(tokens.tolist(), held[0].tolist())
        fill_rows(ordered, held, active, ranks)
        assert held[0].tolist() == filled
        level = np.empty(held.shape, np.int64)
        thin_rows(ordered, held, level, 2)
        assert level[0].tolist() == thin_layer(curve, tokens.tolist(), filled, 2)


@pytest.mark.parametrize("shape", [(8, 4, 3), (6, 2, 4), (9, 3, 4), (4, 4, 2)], ids=str)
@pytest.mark.parametrize("begin", [0, 1, 2])
@pytest.mark.parametrize("tight", [0.7, 1.5])
def test_several_batches_are_planned_as_by_plain_python(
    curve: Curve, shape: tuple[int, int, int], begin: int, tight: float
) -> None:
    experts, ranks, slots = shape
    for load in list(loads(experts))[:4]:
        tokens = np.stack([load * factor for factor in (0.05, 1.0, 8.0)])
        held = np.full((1, ranks, slots), -1, np.int32)
        held[0].flat[np.arange(experts) * (ranks * slots // experts)] = np.arange(experts)
        fill_rows(order_rows(curve, tokens[1:2]), held, np.empty(held.shape, np.bool_), ranks)
        level, limits = np.empty(held.shape, np.int64), np.ones((1, 3))
        thin_rows(order_rows(curve, tokens[1:2]), held, level, begin)
        nest_rows(curve, tokens[None], limits, held, level, (ranks, 0, np.bool_(False)))
        limits = np.where(limits > 0, limits * tight, 1.0)
        plain = nest_layer(curve, tokens.tolist(), limits[0].tolist(), held[0].tolist(), level[0].tolist(), 15)
        nest_rows(curve, tokens[None], limits, held, level, (ranks, 15, np.bool_(True)))
        assert (held[0].tolist(), level[0].tolist(), limits[0].tolist()) == plain


@pytest.mark.parametrize("shape", [(12, 4, 5), (8, 4, 3), (5, 1, 6), (6, 6, 2), (3, 4, 2)], ids=str)
def test_first_replicas_are_apart_from_all_others(curve: Curve, shape: tuple[int, int, int]) -> None:
    experts, ranks, slots = shape
    first = -(-experts // ranks)
    for tokens in loads(experts):
        held, extra = np.empty((1, ranks, slots), np.int32), np.empty((1, ranks, slots), np.int64)
        apart_rows(curve, order_rows(curve, tokens[None]), first, held, extra)
        assert sorted(held[(extra == 0) & (held >= 0)].tolist()) == list(range(experts))
        assert ((extra[0] == 0).sum(axis=1) == first).all()
        for rank in held[0]:
            assert len(set(rank[rank >= 0].tolist())) == (rank >= 0).sum()
