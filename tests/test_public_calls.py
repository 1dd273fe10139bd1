"""Whatever a public call is given, it succeeds or raises an error of ours."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from typing import Any

import numpy as np
import pytest

import public_calls
from equipoise.errors import EquipoiseError
from public_calls import INTERNAL, MODULES, Call
from public_values import odd

PAIRS = 20  # calls with two odd arguments, for each public call


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Call]]:
    folder = tmp_path_factory.mktemp("calls")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # some calls write to a path that they are given
        yield public_calls.calls(folder)


def public_names() -> Iterator[str]:
    """Yield the public functions and classes, and the methods of these, as ``calls`` names them."""
    for name in MODULES:
        module = import_module(name)
        for public in set(module.__all__) - INTERNAL.get(name, set()):
            value = getattr(module, public)
            if inspect.isfunction(value):
                yield public
            elif inspect.isclass(value) and not issubclass(value, Exception):
                label = f"engines {public}" if value.__module__ == "equipoise.engines.settings" else public
                yield label
                for method, how in vars(value).items():
                    if not method.startswith("_") and (inspect.isfunction(how) or isinstance(how, classmethod)):
                        yield f"{label}.{method}"


def test_every_public_name_is_called(calls: dict[str, Call]) -> None:
    assert set(public_names()) == {name.split(" (")[0] for name in calls}


def test_what_fits_is_taken(calls: dict[str, Call]) -> None:
    for name, (call, arguments) in calls.items():
        if name != "plan_sharded":  # which needs a group of ranks
            use(call, arguments)


def parameters(call: Any, arguments: dict[str, Any]) -> list[str]:
    named = [
        p.name for p in inspect.signature(call).parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    return list(dict.fromkeys([*named, *arguments]))


def use(call: Any, arguments: dict[str, Any]) -> None:
    """Call, and ask what comes back for all that it says of itself."""
    result = call(**arguments)
    if inspect.isgenerator(result):
        list(islice(result, 3))
    if dataclasses.is_dataclass(result) and type(result).__module__.startswith("equipoise."):
        for name, how in inspect.getmembers(type(result)):
            if not name.startswith("_") and (isinstance(how, property) or hasattr(how, "func")):
                getattr(result, name)
        if hasattr(result, "summary"):
            result.summary()


@pytest.mark.filterwarnings("ignore")
def test_what_does_not_fit_gets_an_error_of_ours(calls: dict[str, Call]) -> None:
    rng, wrong = np.random.default_rng(0), []
    for name, (call, arguments) in calls.items():
        known = parameters(call, arguments)
        tries = [{parameter: value} for parameter in known for value in odd()]
        for _ in range(PAIRS if len(known) > 1 else 0):
            two = rng.choice(known, 2, replace=False)
            tries.append({parameter: odd()[rng.integers(len(odd()))] for parameter in two})
        for changed in tries:
            try:
                use(call, {**arguments, **changed})
            except (EquipoiseError, AssertionError):
                pass
            except Exception as error:
                wrong.append(f"{name}({describe(changed)}): {type(error).__name__}: {error}"[:300])
    assert not wrong, f"{len(wrong)} calls:\n" + "\n".join(wrong)


def describe(changed: dict[str, Any]) -> str:
    from equipoise.errors import shown

    return ", ".join(f"{name}={shown(value)}" for name, value in changed.items())
