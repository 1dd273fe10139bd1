"""Asked for by name a backend runs or refuses, whoever is asked; only "auto" chooses."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import equipoise as eq
from equipoise.backends import BACKENDS, choose_backend
from equipoise.eplb import balanced_packing, rebalance_experts
from equipoise.errors import InvalidInputError, MissingDependencyError, UnknownNameError
from equipoise.strategies import STRATEGIES
from quick import QUICK

PROBLEM = eq.PlacementProblem(np.random.default_rng(0).lognormal(0, 1, (2, 12)), eq.Cluster(4, 4))
IN_FORCE = eq.Placement.in_order(2, PROBLEM.cluster, 12)
PLANNERS: dict[str, Callable[..., Any]] = {
    "solve": lambda **how: eq.solve(PROBLEM, **how),
    "solve from a placement in force": lambda **how: eq.solve(PROBLEM, current=IN_FORCE, **how),
    "solve with few transfers": lambda **how: eq.solve(PROBLEM, current=IN_FORCE, max_transfers=1, **how),
    "slots_for": lambda **how: eq.slots_for(PROBLEM, **how),
    "rebalance_experts": lambda **how: rebalance_experts(PROBLEM.load, 16, 1, 1, 4, **how),
}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Hide a package from whoever looks whether it is installed."""
    find_spec = importlib.util.find_spec

    def hide(package: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))

    return hide


def test_auto_on_the_cpu_takes_the_native_implementation() -> None:
    assert choose_backend("auto").name == "numba"


@pytest.mark.parametrize("name", ["reference", "numba", "torch"])
def test_a_backend_asked_for_by_name_is_the_one_that_runs(name: str) -> None:
    if BACKENDS[name].missing:
        pytest.skip(f"{name} is not installed")
    assert choose_backend(name) is BACKENDS[name]
    plan = eq.solve(PROBLEM, "pruned-restarts", backend=name, **QUICK["pruned-restarts"])
    assert plan.provenance.implementation == name


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["torch", "triton"])
def test_a_backend_that_cannot_run_here_is_refused_whatever_plans(
    planner: str, strategy: str, name: str, without: Callable[[str], None]
) -> None:
    without("torch")
    with pytest.raises(MissingDependencyError, match=rf"^backend '{name}' needs torch.*, not installed here; pip "):
        PLANNERS[planner](strategy=strategy, backend=name)


def test_a_backend_that_cannot_run_here_packs_nothing(without: Callable[[str], None]) -> None:
    without("torch")
    with pytest.raises(MissingDependencyError, match="backend 'torch' needs torch"):
        balanced_packing(PROBLEM.load, 4, backend="torch")


def test_a_backend_for_cuda_is_refused_where_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDependencyError, match="backend 'triton' needs a CUDA device, and torch finds none"):
        eq.solve(PROBLEM, backend="triton")


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if "reference" not in STRATEGIES[name].backends])
def test_a_strategy_does_not_ignore_a_backend_that_it_does_not_run_on(planner: str, strategy: str) -> None:
    rule = rf"^backend is 'reference', and {strategy} runs on numba; use backend 'numba' or 'auto', or a strategy that "
    with pytest.raises(InvalidInputError, match=rule):
        PLANNERS[planner](strategy=strategy, backend="reference")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_runs_on_the_native_backend(strategy: str) -> None:
    plans = [eq.solve(PROBLEM, strategy, backend=name, **QUICK.get(strategy, {})) for name in ("auto", "numba")]
    assert plans[0].placement == plans[1].placement
    assert plans[0].provenance.implementation == "numba"


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="backend is 'fast'; it must be auto or one of reference, numba"):
        choose_backend("fast")


def test_a_backend_without_its_package_refuses_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for backend in BACKENDS.values():
        if backend.needs:
            assert backend.missing == backend.needs
            with pytest.raises(MissingDependencyError, match=f"backend '{backend.name}' needs"):
                choose_backend(backend.name)
