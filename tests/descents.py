"""Layers in the middle of a descent, for the tests of its parts."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.descent.facts import MOST, TARGET, new_facts
from equipoise.descent.layer import Layer
from equipoise.kernels.native import native

SHAPES = [(16, 8, 4), (40, 16, 5), (30, 12, 6)]  # experts, ranks, slots


class Kernels:
    """What a module of descent has, its kernels as Python may call them, those too that only kernels call."""

    def __init__(self, module: str) -> None:
        self._module = import_module(f"equipoise.descent.{module}")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        is_internal = getattr(found, "targetoptions", {}).get("no_cpython_wrapper", False)
        return from_python(found) if is_internal else found


@cache
def from_python(kernel: Any) -> Any:
    """Return a kernel with what turns Python's arguments into native ones, which it has not of its own."""

    def call(*arguments):  # type: ignore[no-untyped-def]
        return kernel(*arguments)

    call.__qualname__ = f"call_{kernel.py_func.__qualname__}"  # compiled code is told apart by it
    return native(call)


LAYERS, COUNTS, FOLD = Kernels("layer"), Kernels("counts"), Kernels("fold")


def dealt(shape: tuple[int, int, int], seed: int, sigma: float = 1.0, slack: float = 1.001) -> Layer:
    """Return a layer after the first deal of its replicas, kept as the best; ``slack`` times the mean is its target."""
    experts, num_ranks, slots = shape
    load = np.random.default_rng([*shape, seed]).lognormal(10, sigma, experts)
    layer = layer_of(np.rint(load * 1000).astype(np.int64), num_ranks, slots)
    FOLD.fold(layer)
    LAYERS.keep(layer)
    layer.facts[TARGET] = int(layer.ranks.load.mean() * slack)
    return layer


def layer_of(load: NDArray[np.int64], num_ranks: int, slots: int, effort: str = "balanced") -> Layer:
    """Return a layer of these loads with the counts that make its largest replica least, and work to spend."""
    experts = len(load)
    bits = experts.bit_length()
    layer: Layer = LAYERS.new_layer(num_ranks, slots, experts, num_ranks, np.zeros(1, np.bool_))
    facts = new_facts(np.zeros(1, np.int64), effort)
    LAYERS.read_layer(layer, np.sort((~load << bits) | np.arange(experts)), bits, facts[0])
    layer.facts[MOST] = 10**12
    COUNTS.set_target(layer, 0.001)
    return layer


def assert_consistent(layer: Any) -> None:
    """Recount all that the ranks say of their slots: replicas, values, loads, and the order of each."""
    ranks, weight = layer.ranks, layer.weight
    held = np.sort(ranks.expert, axis=1)
    assert (held[:, 1:] != held[:, :-1]).all(), "an expert lies twice on a rank"
    assert np.array_equal(np.bincount(ranks.expert.ravel(), minlength=len(weight)), ranks.replicas)
    each = (weight // ranks.replicas)[ranks.expert]
    assert np.array_equal(each, ranks.value)
    assert np.array_equal(each.sum(axis=1), ranks.load)
    assert (np.diff(each, axis=1) >= 0).all()
    assert sorted(ranks.order.tolist()) == list(range(len(ranks.load)))
    assert (np.diff(ranks.load[ranks.order]) >= 0).all()


def assert_ties_go_to_the_lowest(ranks: Any) -> None:
    """The order of the ranks is by load, and by number where loads are equal."""
    assert np.array_equal(ranks.order, np.lexsort((np.arange(len(ranks.load)), ranks.load)))
