from __future__ import annotations

import pytest

from equipoise.backends import BACKENDS, choose_backend
from equipoise.errors import MissingDependencyError, UnknownNameError


def test_auto_on_the_cpu_takes_the_native_implementation() -> None:
    assert choose_backend("auto").name == "numba"


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_asked_for_by_name_is_the_one_that_runs(name: str) -> None:
    assert choose_backend(name) is BACKENDS[name]


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="backend is 'fast'; it must be auto or one of reference, numba"):
        choose_backend("fast")


def test_a_backend_without_its_package_refuses_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for backend in BACKENDS.values():
        if backend.needs:
            assert backend.missing == backend.needs
            with pytest.raises(MissingDependencyError, match=f"backend '{backend.name}' needs"):
                backend.load()
