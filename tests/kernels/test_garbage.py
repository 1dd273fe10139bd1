"""While kernels are compiled no garbage is collected, and afterwards as before."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from equipoise.kernels.garbage import _Pause


def compiling(module: str) -> Any:
    """Return what numba says when it compiles a function of a module."""
    return SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=SimpleNamespace(__module__=module))})


OURS, OTHERS = compiling("equipoise.descent.numba"), compiling("somebody.else")


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_nothing_is_collected_until_the_outermost_kernel_is_compiled() -> None:
    pause = _Pause()
    for event in (OURS, OTHERS, OURS):
        pause.on_start(event)
        assert not gc.isenabled()
    for event in (OURS, OTHERS):
        pause.on_end(event)
        assert not gc.isenabled()
    pause.on_end(OURS)
    assert gc.isenabled()


def test_what_others_compile_changes_nothing() -> None:
    pause = _Pause()
    pause.on_start(OTHERS)
    assert gc.isenabled()
    pause.on_end(OTHERS)
    assert gc.isenabled()


def test_whoever_collects_nothing_goes_on_so() -> None:
    pause = _Pause()
    gc.disable()
    pause.on_start(OURS)
    pause.on_end(OURS)
    assert not gc.isenabled()
