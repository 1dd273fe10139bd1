"""While kernels are compiled no garbage is collected, and afterwards as before."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from equipoise.kernels.garbage import Pause
from equipoise.kernels.native import COMPILER, native

numba = pytest.importorskip("numba")


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_nothing_is_collected_until_the_outermost_ends() -> None:
    pause = Pause()
    with pause:
        with pause:
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_ends_it_too() -> None:
    with pytest.raises(ZeroDivisionError), Pause():
        _ = 1 // 0
    assert gc.isenabled()


def test_whoever_collects_nothing_goes_on_so() -> None:
    gc.disable()
    with Pause():
        pass
    assert not gc.isenabled()


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled with NUMBA_DISABLE_JIT")
def test_kernels_are_compiled_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @native
    def one():  # type: ignore[no-untyped-def]
        return 1

    one._cache.disable()  # type: ignore[attr-defined]
    seen, used = [], COMPILER["pipeline_class"]
    passes = used.define_pipelines
    monkeypatch.setattr(used, "define_pipelines", lambda self: seen.append(gc.isenabled()) or passes(self))
    assert one() == 1
    assert seen == [False]
    assert gc.isenabled()
